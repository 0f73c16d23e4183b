"""linear_path_sums.json: exact finite-width answers.

1. Linear networks: every h^l_i is written out as an explicit polynomial (sum over paths) in the independent Gaussian
   weights W^l_ij ~ N(0, sigma_w2/n_{l-1}) and biases b^l_i ~ N(0, sigma_b2); products are expanded and each monomial is
   averaged by Isserlis, E g^{2k} = (2k-1)!! var^k.  Rational arithmetic, no approximation.
   Cross-checks: E q by the recursion, Var/Cov by the law of total variance (conditional Wishart), gradients by the product.
2. ReLU, He, no bias: M_l = M_{l-1} (2/n_l) sum_i relu(g_i)^2 given the layer below, so E M_L^2 = M_0^2 prod(1+5/n_l).
3. First-layer law: M_1 = mean of n_1 i.i.d. phi(u)^2, u ~ N(0, G), G = sigma_b2 + sigma_w2 M_0.
"""
import json
from fractions import Fraction as F

from make_common import *


# ---- polynomials: {monomial: coefficient}, monomial = sorted tuple of variable ids (with repetition)
def padd(a, b):
    r = dict(a)
    for k, v in b.items(): r[k] = r.get(k, 0) + v
    return r
def pmul(a, b):
    r = {}
    for k1, v1 in a.items():
        for k2, v2 in b.items():
            k = tuple(sorted(k1 + k2)); r[k] = r.get(k, 0) + v1 * v2
    return r
def pscale(a, s): return {k: v * s for k, v in a.items()}
def psum(l):
    r = {}
    for a in l: r = padd(r, a)
    return r


class Net:
    def __init__(self, widths, sw, sb, xs, vs):
        self.n, self.sw, self.sb, self.xs, self.vs = widths, sw, sb, xs, vs
        self.var = []
        n = widths; self.L = len(n) - 1
        self.W = [None] + [[[self.new(sw / n[l - 1]) for _ in range(n[l - 1])] for _ in range(n[l])] for l in range(1, self.L + 1)]
        self.b = [None] + [[self.new(sb) for _ in range(n[l])] for l in range(1, self.L + 1)]
        self.h = []
        for x in xs:
            cur = [{(): F(t)} for t in x]; hs = [cur]
            for l in range(1, self.L + 1):
                cur = [psum([pmul({(self.W[l][i][j],): F(1)}, cur[j]) for j in range(n[l - 1])] +
                            ([{(self.b[l][i],): F(1)}] if sb else [])) for i in range(n[l])]
                hs.append(cur)
            self.h.append(hs)
        self.d = []
        for v in vs:
            cur = [{(): F(t)} for t in v]; ds = {self.L: cur}
            for l in range(self.L - 1, 0, -1):
                cur = [psum([pmul({(self.W[l + 1][k][i],): F(1)}, cur[k]) for k in range(n[l + 1])]) for i in range(n[l])]
                ds[l] = cur
            self.d.append(ds)

    def new(self, v): self.var.append(v); return len(self.var) - 1

    def mono(self, k):
        r = F(1); i = 0
        while i < len(k):
            j = i
            while j < len(k) and k[j] == k[i]: j += 1
            m = j - i
            if m % 2: return F(0)
            for t in range(m - 1, 0, -2): r *= t
            r *= self.var[k[i]] ** (m // 2); i = j
        return r

    def E(self, p): return sum((c * self.mono(k) for k, c in p.items()), F(0))

    def E2(self, p, q):          # E[p q] without storing the product
        s = F(0)
        par = lambda k: tuple(v for v in sorted(set(k)) if k.count(v) % 2)
        by = {}
        for k, c in q.items(): by.setdefault(par(k), []).append((k, c))
        for k1, c1 in p.items():
            for k2, c2 in by.get(par(k1), []): s += c1 * c2 * self.mono(tuple(sorted(k1 + k2)))
        return s

    def q(self, l, a, b):
        return pscale(psum([pmul(x, y) for x, y in zip(self.h[a][l], self.h[b][l])]), F(1, self.n[l]))

    def g(self, l, a, b): return psum([pmul(x, y) for x, y in zip(self.d[a][l], self.d[b][l])])

    def dW2(self, l):            # || sum_a delta_a x_a^T ||_F^2
        B = range(len(self.xs)); tot = F(0)
        for i in range(self.n[l]):
            for j in range(self.n[l - 1]):
                p = psum([pmul(self.d[a][l][i], self.h[a][l - 1][j]) for a in B])
                tot += self.E2(p, p)
        return tot


def fs(x): return st(mpf(x.numerator) / x.denominator)


AB = {'aa': (0, 0), 'ab': (0, 1), 'bb': (1, 1)}


def linear_rows(widths, sw, sb, xs, vs, grad_var=True):
    sw, sb = F(sw), F(sb); xs = [[F(t) for t in x] for x in xs]; vs = [[F(t) for t in v] for v in vs]
    N = Net(widths, sw, sb, xs, vs); L = N.L; rows = []
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    # cross-check recursion
    G = {k: sb + sw * dot(xs[a], xs[b]) / widths[0] for k, (a, b) in AB.items()}
    mean = dict(G)
    # second-moment recursion of S = Gram pair moments: need E[G_ij G_kl]; start deterministic
    keys = list(AB)
    EG = {(k, m): G[k] * G[m] for k in keys for m in keys}
    name = lambda i, j: {(0, 0): 'aa', (0, 1): 'ab', (1, 0): 'ab', (1, 1): 'bb'}[(i, j)]
    for l in range(1, L + 1):
        if l > 1: mean = {k: sb + sw * mean[k] for k in keys}
        Eqq = {}
        for k in keys:
            for m in keys:
                i, j = AB[k]; p, r = AB[m]
                Eqq[k, m] = EG[k, m] + (EG[name(i, p), name(j, r)] + EG[name(i, r), name(j, p)]) / widths[l]
        P = {k: N.q(l, *AB[k]) for k in keys}
        Eq = {k: N.E(P[k]) for k in keys}
        cov = {}
        for x in range(3):
            for y in range(x, 3):
                k, m = keys[x], keys[y]
                e = N.E2(P[k], P[m]); assert e == Eqq[k, m], (l, k, m)
                cov[k + ',' + m] = fs(e - Eq[k] * Eq[m])
        for k in keys: assert Eq[k] == mean[k]
        gram = {k: N.E(N.g(l, *AB[k])) for k in keys}
        gvar = {k: N.E2(N.g(l, *AB[k]), N.g(l, *AB[k])) - gram[k] ** 2 for k in keys}
        for k in keys: assert gram[k] == sw ** (L - l) * dot(vs[AB[k][0]], vs[AB[k][1]])
        dw = N.dW2(l)
        m0 = {k: dot(xs[a], xs[b]) for k, (a, b) in AB.items()} if l == 1 else prev
        assert dw == gram['aa'] * m0['aa'] + 2 * gram['ab'] * m0['ab'] + gram['bb'] * m0['bb']
        prev = {k: Eq[k] * widths[l] for k in keys}
        rows.append(dict(kind='linear', widths=widths, sigma_w2=fs(sw), sigma_b2=fs(sb), inputs=[[fs(t) for t in x] for x in xs],
                         cotangents=[[fs(t) for t in v] for v in vs], layer=l, E_q={k: fs(Eq[k]) for k in keys}, cov_q=cov,
                         var_q={k: cov[k + ',' + k] for k in keys},
                         E_grad_gram={k: fs(gram[k]) for k in keys}, var_grad_gram={k: fs(gvar[k]) for k in keys},
                         E_dW_norm2=fs(dw)))
        # advance: G_{l+1} = sb + sw q_l
        EG = {(k, m): sb * sb + sb * sw * (Eq[k] + Eq[m]) + sw * sw * Eqq[k, m] for k in keys for m in keys}
    return rows


def main():
    rows = []
    X = [['1', '-0.5'], ['0.25', '0.75']]; V = [['1', '0.5'], ['-0.25', '2']]
    rows += linear_rows([2, 3, 2, 2], '1.5', '0.1', X, V)
    rows += linear_rows([2, 3, 2, 2], '1', '0', X, V)
    rows += linear_rows([2, 2, 3, 2], '0.7', '0.3', [['0.3', '2'], ['-1.2', '0.4']], V)
    rows += linear_rows([3, 1, 2], '2', '0.25', [['1', '1', '-1'], ['0.5', '0', '2']], V)
    rows += linear_rows([1, 1, 1, 1], '1.25', '0.05', [['1'], ['-2']], [['1'], ['0.75']])
    for r in rows: print(r['widths'], r['layer'], r['E_q'], r['var_q'], r['E_grad_gram'], r['E_dW_norm2'], flush=True)

    # ReLU He: quadrature of <relu^4>_1 = 3/2, <relu^2>_1 = 1/2
    with mp.workdps(40):
        m2, m4 = gauss1d('relu', 1, [lambda p, d, z: p ** 2, lambda p, d, z: p ** 4])
        kappa = 4 * (m4 - m2 * m2)                     # relative variance of one unit: 5
        assert abs(kappa - 5) < mpf('1e-30')
        for M0, ws in [('1', [50] * 10), ('1', [10] * 5), ('2', [4, 8, 16, 8]), ('0.5', [1, 2, 3]), ('1', [100] * 20), ('3', [7])]:
            pr = F(1); dead = F(1)
            for n in ws: pr *= F(n + 5, n); dead *= 1 - F(1, 2 ** n)
            m = F(M0) ** 2 * pr
            rows.append(dict(kind='relu_he_M2', M_0=M0, widths=ws, E_M_L=M0, E_M_L2=fs(m), var_M_L=fs(m - F(M0) ** 2), prob_M_L_zero=fs(1 - dead)))
            print(rows[-1], flush=True)
        for name, sw, sb, M0, n in [('relu', '2', '0', '1', 10), ('relu', '1.5', '0.1', '0.8', 25), ('tanh', '1.5', '0.05', '1', 10), ('tanh', '2.5', '0.1', '0.4', 64)]:
            G = mpf(sb) + mpf(sw) * mpf(M0)
            a, b, c = gauss1d(name, G, [lambda p, d, z: p ** 2, lambda p, d, z: p ** 4, lambda p, d, z: p ** 6])
            if name == 'relu': assert abs(b / (mpf(3) / 2 * G * G) - 1) < mpf('1e-30')
            rows.append(dict(kind='first_layer_law', activation=name, sigma_w2=sw, sigma_b2=sb, M_0=M0, n_1=n, G=st(G), mean_M_1=st(a),
                             var_M_1=st((b - a * a) / n), third_central_M_1=st((c - 3 * a * b + 2 * a ** 3) / n ** 2)))
            print(rows[-1], flush=True)
    doc = dict(
        description="Exact finite-width answers, Gaussian weights W^l_ij ~ N(0,sigma_w2/n_{l-1}), biases N(0,sigma_b2) shared by the inputs. kind=linear: phi(u)=u, widths "
                    "[n_0..n_L], two explicit inputs (a,b); q^l_ab=(1/n_l) h^l_a.h^l_b; E_q, var_q and the covariance matrix cov_q of (q_aa,q_ab,q_bb) over the weights and biases; "
                    "E=sum_a v_a.x^L_a with the explicit fixed cotangents v_a, delta^l_a=dE/dh^l_a (delta^L=v), grad_gram=delta_a.delta_b (sum over units) with mean and variance; "
                    "E_dW_norm2 = E||dE/dW^l||_F^2 for the batch sum. kind=relu_he_M2: ReLU, sigma_w2=2, no bias, widths [n_1..n_L], M_l=||x^l||^2/n_l: E M_L^2=M_0^2 prod(1+5/n_l) "
                    "(dead layers included). kind=first_layer_law: M_1 = mean over n_1 units of phi(u)^2, u~N(0,G), G=sigma_b2+sigma_w2 M_0: mean, variance, third central moment.",
        source="make_linear_path_sums.py: linear rows by expanding all paths and Isserlis in rational arithmetic, asserted equal to the recursions (law of total variance); "
               "relu and first-layer rows by quadrature at 40 digits",
        format="rows; kind selects the fields; numbers are decimal strings, 20 significant digits (widths, layer, n_1 integers; sigma_w2 etc. exact decimals)",
        rows=rows)
    json.dump(doc, open(os.path.join(HERE, 'linear_path_sums.json'), 'w'), indent=1)


if __name__ == '__main__':
    main()

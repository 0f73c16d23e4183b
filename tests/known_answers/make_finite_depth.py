"""finite_depth.json: mean-field (infinite-width) two-input trajectories over L = 6 layers, forward and backward."""
import json

from make_common import *

L = 6
GRAM = [['1.0', '0.4'], ['0.4', '0.5']]
CASES = [('tanh', '1.5', '0.05', '1'), ('relu', '2', '0', '1'), ('erf', '1.2', '0.01', '1'), ('gelu', '2', '0.05', '1'),
         ('tanh', '1.5', '0.05', '0.8')]


def trajectory(name, sw, sb, rho):
    g = [mpf(GRAM[0][0]), mpf(GRAM[0][1]), mpf(GRAM[1][1])]
    q = [[sw * x + sb for x in g]]                       # l = 1; x^0 is not masked
    fwd, bwd = [], []
    for l in range(1, L + 1):
        qa, qab, qb = q[-1]
        ma, mb = moments1(name, qa), moments1(name, qb)
        v, err = pair(name, qa, qb, qab)
        assert err is None or err < mpf('1e-22')
        fwd.append([ma[0], v[0], mb[0]]); bwd.append([ma[1], v[1], mb[1]])
        # x^l masked before dense map l+1: diagonal E(m/rho)^2 = 1/rho, cross E m_a m_b / rho^2 = 1
        q.append([sw / rho * ma[0] + sb, sw * v[0] + sb, sw / rho * mb[0] + sb])
    q.pop()
    grams = {}
    for kind, cross in (('independent', mpf(0)), ('shared', mpf(1))):
        G = [bwd[L - 1][0], cross * bwd[L - 1][1], bwd[L - 1][2]]     # delta^L = v * phi'(h^L), x^L not masked
        out = [None] * L; out[L - 1] = G
        for l in range(L - 1, 0, -1):
            b = bwd[l - 1]
            G = [sw / rho * b[0] * G[0], sw * b[1] * G[1], sw / rho * b[2] * G[2]]
            out[l - 1] = G
        grams[kind] = out
    return q, fwd, bwd, grams


def main():
    rows = []
    for name, sw, sb, rho in CASES:
        q, fwd, bwd, gr = trajectory(name, mpf(sw), mpf(sb), mpf(rho))
        for l in range(L):
            tri = lambda t: dict(aa=st(t[0]), ab=st(t[1]), bb=st(t[2]))
            rows.append(dict(activation=name, sigma_w2=sw, sigma_b2=sb, keep_probability=rho, layer=l + 1,
                             q=tri(q[l]), c=st(q[l][1] / mp.sqrt(q[l][0] * q[l][2])),
                             E_phi_phi=tri(fwd[l]), E_dphi_dphi=tri(bwd[l]),
                             grad_gram_independent=tri(gr['independent'][l]), grad_gram_shared=tri(gr['shared'][l])))
            print(name, rho, l + 1, rows[-1]['q'], rows[-1]['grad_gram_shared'], flush=True)
    doc = dict(
        description="Mean-field trajectories for two inputs with x_a.x_b/n_0 = [[1.0,0.4],[0.4,0.5]], L=6 dense layers h^l = W^l x~^{l-1} + b^l, x^l = phi(h^l). "
                    "q^1 = sigma_w2*gram + sigma_b2 (h^1 is the first pre-activation, x^0 is never masked); q^{l+1}_ab = sigma_w2 k_ab E phi(u_a)phi(u_b) + sigma_b2 with "
                    "(u_a,u_b)~N(0,q^l), k_aa = 1/rho, k_ab = 1. Dropout: x~^l = x^l m/rho, m Bernoulli(rho), independent over units, layers AND inputs, applied to "
                    "x^1..x^{L-1}; the last post-activation x^L is NOT masked; the same masks act in both passes. Energy E = sum_a v_a.x^L_a with v_a Gaussian, "
                    "E||v_a||^2 = 1, independent of the network: 'independent' = v_a, v_b independent; 'shared' = v_a = v_b. delta^l_a = dE/dh^l_a; "
                    "grad_gram = E delta^l_a.delta^l_b (sum over units, infinite-width limit): delta^L = v*phi'(h^L), "
                    "grad_gram^l_ab = sigma_w2 k_ab E[phi'(u_a)phi'(u_b)] grad_gram^{l+1}_ab. E_phi_phi, E_dphi_dphi: the averages at q^l (no mask factor).",
        source="make_finite_depth.py, mpmath quadrature, 36 digits (make_common), two half-shifted lattices agreeing to < 1e-22",
        format="rows: one per (case, layer); each of q, E_phi_phi, E_dphi_dphi, grad_gram_* is {aa,ab,bb} decimal strings, 20 significant digits. "
               "sigma_w2, sigma_b2, gram, keep_probability are exact decimals.",
        rows=rows)
    json.dump(doc, open(os.path.join(HERE, 'finite_depth.json'), 'w'), indent=1)


if __name__ == '__main__':
    main()

"""gaussian_expectations.json: one- and two-input Gaussian averages (see make_common for the method).

Every value is quadrature.  Cross-checks made here (the script stops on disagreement):
  1-D  mpmath.quad (tanh-sinh) on the same break points; d<phi^2>/dq also as <z phi phi'>/sqrt(q)
       (continuous phi); closed forms for linear, relu, leaky_relu, erf, sin, hard_tanh, elu, sign.
  2-D  analytic: two half-shifted lattices; kinked: conditional mean over u_b given u_a in closed form
       (truncated-Gaussian moments, erfc) and a 1-D mpmath.quad over u_a;
       closed forms for linear, relu, leaky_relu, erf, sin, sign.
"""
import json
import os
import time

from make_common import *

NAMES = ['linear', 'relu', 'leaky_relu', 'tanh', 'erf', 'sigmoid', 'softplus', 'gelu', 'silu', 'elu', 'selu',
         'sin', 'hard_tanh', 'sign']
QS = [1e-8, 0.01, 0.5, 1.0, 3.0, 100.0]
PAIRS = [(1.0, 1.0, 0.3), (0.5, 2.0, -0.7), (1.0, 1.0, 0.999999), (4.0, 0.01, 0.95), (1.0, 1.0, -0.9999),
         (100.0, 30.0, 0.5)]
TOL = mpf('1e-21')
worst = {}


def check(what, a, b, floor=mpf(0)):
    e = abs(a - b) / max(abs(a), abs(b), floor, mpf('1e-300'))
    worst[what] = max(worst.get(what, mpf(0)), e)
    if e > TOL: print('DISAGREE', what, st(a, 25), st(b, 25), st(e, 3), flush=True)


def closed1(name, q):
    """closed forms (cross-check only): <phi^2>, <phi'^2>, d/dq"""
    q = mpf(q); pi = mp.pi
    if name == 'linear': return q, mpf(1), mpf(1)
    if name == 'relu': return q / 2, mpf(1) / 2, mpf(1) / 2
    if name == 'leaky_relu': k = mpf(26) / 50; return k * q, k, k
    if name == 'sign': return mpf(1), mpf(0), mpf(0)
    if name == 'sin': return (1 - mp.exp(-2 * q)) / 2, (1 + mp.exp(-2 * q)) / 2, mp.exp(-2 * q)
    if name == 'erf': return (2 / pi * mp.asin(2 * q / (1 + 2 * q)), 4 / pi / mp.sqrt(1 + 4 * q),
                              4 / pi / (1 + 2 * q) / mp.sqrt(1 + 4 * q))
    if name == 'hard_tanh':
        r = 1 / mp.sqrt(q); P = mp.erf(r / mp.sqrt(2)); g = mp.exp(-r * r / 2) / mp.sqrt(2 * pi)
        return q * (P - 2 * r * g) + mp.erfc(r / mp.sqrt(2)), P, P - 2 * r * g
    if name in ('elu', 'selu'):
        N = lambda x: mp.erfc(-x / mp.sqrt(2)) / 2
        r = mp.sqrt(q); l, a = (mpf(SELU_L), mpf(SELU_A)) if name == 'selu' else (mpf(1), mpf(1))
        E2, E1 = mp.exp(2 * q) * N(-2 * r), mp.exp(q / 2) * N(-r)
        g = 1 / mp.sqrt(2 * pi * q) / 2
        return (l * l * (q / 2 + a * a * (E2 - 2 * E1 + mpf(1) / 2)), l * l * (mpf(1) / 2 + a * a * E2),
                l * l * (mpf(1) / 2 + a * a * (2 * E2 - 2 * g - E1 + 2 * g)))


def trunc(m, s, lo, hi, kmax):
    """E[(v)^k; lo<v<hi], v ~ N(m,s^2), k=0..kmax by the recursion; accurate for lo or hi infinite"""
    A = (lo - m) / s if lo > -mp.inf else -mp.inf
    B = (hi - m) / s if hi < mp.inf else mp.inf
    r2 = mp.sqrt(2)
    if -mp.inf == A: I0 = mp.erfc(-B / r2) / 2
    elif mp.inf == B: I0 = mp.erfc(A / r2) / 2
    elif A > 0: I0 = (mp.erfc(A / r2) - mp.erfc(B / r2)) / 2
    else: I0 = (mp.erfc(-B / r2) - mp.erfc(-A / r2)) / 2
    pdf = lambda x: mpf(0) if abs(x) == mp.inf else mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)
    out = [I0]
    fa, fb = pdf(A), pdf(B)
    pa = mpf(1) if lo > -mp.inf else mpf(0); pb = mpf(1) if hi < mp.inf else mpf(0)
    for k in range(1, kmax + 1):
        prev2 = out[k - 2] * (k - 1) * s * s if k >= 2 else 0
        out.append(m * out[k - 1] + prev2 + s * (fa * pa - fb * pb))
        pa *= lo if lo > -mp.inf else 0; pb *= hi if hi < mp.inf else 0
    return out


def conditional(name, m, s):
    """E[phi], E[phi'], E[phi^2] for u ~ N(m, s^2), closed forms."""
    inf = mp.inf
    if name in ('relu', 'leaky_relu'):
        a = mpf(0) if name == 'relu' else mpf(1) / 5
        p = trunc(m, s, mpf(0), inf, 2); n = trunc(m, s, -inf, mpf(0), 2)
        return p[1] + a * n[1], p[0] + a * n[0], p[2] + a * a * n[2]
    if name == 'sign':
        p = trunc(m, s, mpf(0), inf, 0)[0]; n = trunc(m, s, -inf, mpf(0), 0)[0]
        return p - n, mpf(0), p + n
    if name == 'hard_tanh':
        p = trunc(m, s, mpf(1), inf, 0)[0]; n = trunc(m, s, -inf, mpf(-1), 0)[0]
        c = trunc(m, s, mpf(-1), mpf(1), 2)
        return p - n + c[1], c[0], p + n + c[2]
    l, a = (mpf(SELU_L), mpf(SELU_A)) if name == 'selu' else (mpf(1), mpf(1))
    p = trunc(m, s, mpf(0), inf, 2); n = trunc(m, s, -inf, mpf(0), 0)[0]
    e = lambda k: mp.exp(k * m + k * k * s * s / 2) * mp.erfc((m + k * s * s) / s / mp.sqrt(2)) / 2
    e1, e2 = e(1), e(2)
    return l * (p[1] + a * (e1 - n)), l * (p[0] + a * e1), l * l * (p[2] + a * a * (e2 - 2 * e1 + n))


def pair_by_conditioning(name, qa, qb, qab):
    with mp.workdps(50):
        qa, qb, qab = mpf(qa), mpf(qb), mpf(qab)
        c = qab / mp.sqrt(qa * qb); s = mp.sqrt((qa * qb - qab * qab) / qa)
        f, kinks = ACT[name][0], [mpf(k) for k in ACT[name][1]]
        R = mpf(13); pts = [-R, R] + [k / mp.sqrt(qa) for k in kinks if abs(k / mp.sqrt(qa)) < R]
        sc = s / mp.sqrt(qb) / abs(c)
        pts += [k / mp.sqrt(qb) / c + sgn * j * sc for k in kinks for sgn in (-1, 1) for j in (0, 1, 2, 4, 6, 8, 10, 13)
                if abs(k / mp.sqrt(qb) / c + sgn * j * sc) < R and sc < 2]
        xs, ws = nodes(fill(pts, mpf('0.9')), 44)
        t = [mpf(0)] * 3
        for z, w in zip(xs, ws):
            p, d = f(mp.sqrt(qa) * z); P, D, P2 = conditional(name, qab / qa * mp.sqrt(qa) * z, s)
            W = w * mp.exp(-z * z / 2)
            t[0] += W * p * P; t[1] += W * d * D; t[2] += W * p * p * P2
        return [x / mp.sqrt(2 * mp.pi) for x in t]


def closed2(name, qa, qb, qab):
    qa, qb, r = mpf(qa), mpf(qb), mpf(qab); pi = mp.pi
    if name == 'linear': return [r, mpf(1), qa * qb + 2 * r * r]
    if name in ('relu', 'leaky_relu'):
        def kap(c): return (mp.sqrt(1 - c * c) + c * (pi - mp.acos(c))) / (2 * pi), (pi - mp.acos(c)) / (2 * pi)
        g = mp.sqrt(qa * qb); c = r / g; a = mpf(0) if name == 'relu' else mpf(1) / 5
        (k1, d1), (k2, d2) = kap(c), kap(-c)
        s4 = lambda c: ((pi - mp.acos(c)) * (1 + 2 * c * c) + 3 * c * mp.sqrt(1 - c * c)) / (2 * pi)
        A, B = s4(c), s4(-c)
        return [g * ((1 + a * a) * k1 - 2 * a * k2), (1 + a * a) * d1 + 2 * a * d2,
                g * g * ((1 + a ** 4) * A + 2 * a * a * B)]
    if name == 'erf':
        return [2 / pi * mp.asin(2 * r / mp.sqrt((1 + 2 * qa) * (1 + 2 * qb))),
                4 / pi / mp.sqrt((1 + 2 * qa) * (1 + 2 * qb) - 4 * r * r), None]
    if name == 'sin':
        e = mp.exp(-(qa + qb) / 2)
        p4 = (1 - mp.exp(-2 * qa) - mp.exp(-2 * qb) + (mp.exp(-2 * (qa + qb - 2 * r)) + mp.exp(-2 * (qa + qb + 2 * r))) / 2) / 4
        return [e * mp.sinh(r), e * mp.cosh(r), p4]
    if name == 'sign':
        return [2 / pi * mp.asin(r / mp.sqrt(qa * qb)), None, mpf(1)]
    return None


def main():
    rows = []
    for name in NAMES:
        t0 = time.time()
        for q in QS:
            big = name == 'sin' and q == 100.0        # d<phi^2>/dq = exp(-200): needs 110 guard digits
            with mp.workdps(140 if big else 44):
                xtra = dict(n=160) if big else {}
                v = moments1(name, q, **xtra)
                fl = mpf(0)
                if name == 'sign':                         # d<phi^2>/dq = 0 exactly; quadrature must say so
                    assert max(abs(v[1]), abs(v[2]) * mpf(q)) < mpf('1e-40'); v = (v[0], mpf(0), mpf(0))
                c1 = closed1(name, q)
                if c1:
                    for k in range(3):
                        # elu/selu closed forms lose digits by cancellation at small q
                        if not (name in ('elu', 'selu') and q < 1e-3): check('1d closed form', v[k], c1[k], fl)
                if name != 'sign':
                    w = gauss1d(name, q, [lambda p, d, z: z * p * d], **xtra)[0] / mp.sqrt(mpf(q))
                    check('1d dq by parts', v[2], w, fl)
                br = breaks1d(name, q); f = ACT[name][0]; rq = mp.sqrt(mpf(q))
                with mp.workdps(30):
                    g = lambda k: mp.quad(lambda z: f(rq * z)[k] ** 2 * mp.exp(-z * z / 2), br) / mp.sqrt(2 * mp.pi)
                    if q in (0.5, 100.0): check('1d mp.quad', v[0], g(0)); check('1d mp.quad', v[1], g(1))
            for quantity, x in zip(('phi2', 'dphi2', 'd_phi2_dq'), v):
                rows.append(dict(activation=name, q=exact_double(q), quantity=quantity, value=st(x)))
        for qa, qb, c in PAIRS:
            qab = c * (qa * qb) ** 0.5
            with mp.workdps(60 if name == 'sin' else mp.dps):   # sin: averages as small as 1e-17
                v, err = pair(name, qa, qb, qab)
            if err is not None: worst['2d shifted lattices'] = max(worst.get('2d shifted lattices', 0), err)
            if ACT[name][1]:
                for a, b in zip(v, pair_by_conditioning(name, qa, qb, qab)): check('2d conditioning', a, b, mpf('1e-30'))
            for a, b in zip(v, closed2(name, qa, qb, qab) or []):
                if b is not None: check('2d closed form', a, b)
            if name == 'sign': v[1] = None
            for quantity, x in zip(PROD, v):
                rows.append(dict(activation=name, q_aa=exact_double(qa), q_ab=exact_double(qab), q_bb=exact_double(qb),
                                 quantity=quantity, value=st(x)))
        print(name, round(time.time() - t0, 1), {k: st(e, 3) for k, e in worst.items()}, flush=True)
    doc = dict(
        description="Gaussian averages of activation functions. One-input rows: phi2 = <phi^2>_q, dphi2 = <phi'^2>_q, "
                    "d_phi2_dq = d<phi^2>_q/dq with <f>_q = E f(sqrt(q) z), z~N(0,1). Two-input rows: phi_phi = E phi(u_a)phi(u_b), "
                    "dphi_dphi = E phi'(u_a)phi'(u_b), phi2_phi2 = E phi(u_a)^2 phi(u_b)^2 with (u_a,u_b)~N(0,[[q_aa,q_ab],[q_ab,q_bb]]). "
                    "phi' is the almost-everywhere derivative: for sign it is 0 almost everywhere, so dphi2 is exactly 0 there (not the "
                    "distributional derivative, which is infinite) and dphi_dphi is null (not applicable). "
                    "leaky_relu slope 1/5; elu alpha 1; selu lambda=%s alpha=%s; gelu u*Phi(u) (exact, erf form); "
                    "hard_tanh clips to [-1,1]; sign(0) irrelevant." % (SELU_L, SELU_A),
        source="make_gaussian_expectations.py: mpmath quadrature at >= 36 digits, split at kinks. Largest relative disagreement "
               "with the cross-checks: " + ", ".join("%s %s" % (k, st(e, 2)) for k, e in worst.items()),
        format="rows: activation, quantity, value (20 significant digits, decimal string, or null) and either q or q_aa,q_ab,q_bb: "
               "the exact decimal expansion of the IEEE double used (q_ab = c*sqrt(q_aa*q_bb) rounded to a double, then taken as exact).",
        rows=rows)
    json.dump(doc, open(os.path.join(HERE, 'gaussian_expectations.json'), 'w'), indent=1)


if __name__ == '__main__':
    main()

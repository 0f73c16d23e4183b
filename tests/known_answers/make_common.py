"""Shared quadrature for the known-answer generators (mpmath only, no closed forms).

Gaussian averages
  one input   <f>_q           = E f(sqrt(q) z),  z ~ N(0,1)
  two inputs  E F(u_a, u_b),  (u_a,u_b) ~ N(0, [[q_aa,q_ab],[q_ab,q_bb]])

Method
  1-D: composite Gauss-Legendre, panels split at every kink and graded in units of 1/sqrt(q).
  2-D, analytic activations: u_a = sqrt(q_aa) z1, u_b = sqrt(q_bb)(c z1 + s z2); trapezoid rule on the
       z-lattice (error exp(-2 pi d/h), d = distance of nearest complex singularity).  The half-shifted
       lattice is an independent estimate; the mean of the two is returned, the difference is the error.
  2-D, kinked activations: outer Gauss-Legendre in z1 (split at the kinks of u_a and graded, in units of
       s/|c|, around the smoothed kinks of u_b), inner Gauss-Legendre in z2 split at the kinks of u_b.
"""
import os
from functools import lru_cache

from mpmath import mp, mpf

DPS = 36
mp.dps = DPS
HERE = os.path.dirname(os.path.abspath(__file__))

SELU_L = '1.0507009873554804934193349852946'
SELU_A = '1.6732632423543772848170429916717'


# ---------------------------------------------------------------- activations
def _linear(u): return u, mpf(1)
def _relu(u): return (u, mpf(1)) if u > 0 else (mpf(0), mpf(0))
def _leaky(u):
    a = mpf(1) / 5
    return (u, mpf(1)) if u > 0 else (a * u, a)
def _tanh(u):
    t = mp.tanh(u)
    return t, 1 - t * t
def _erf(u): return mp.erf(u), 2 / mp.sqrt(mp.pi) * mp.exp(-u * u)
def _sigmoid(u):
    if u >= 0:
        e = mp.exp(-u); s = 1 / (1 + e); return s, e * s * s
    e = mp.exp(u); r = 1 / (1 + e); return e * r, e * r * r
def _softplus(u):
    e = mp.exp(-abs(u)); l = mp.log1p(e) if e < mpf('1e-5') else mp.log(1 + e)
    return (u + l, 1 / (1 + e)) if u >= 0 else (l, e / (1 + e))
def _gelu(u):
    P = mp.erfc(-u / mp.sqrt(2)) / 2
    return u * P, P + u * mp.exp(-u * u / 2) / mp.sqrt(2 * mp.pi)
def _silu(u):
    s, d = _sigmoid(u)
    return u * s, s + u * d
def _elu(u):
    if u > 0: return u, mpf(1)
    return mp.expm1(u), mp.exp(u)
def _selu(u):
    l, a = mpf(SELU_L), mpf(SELU_A)
    if u > 0: return l * u, l
    return l * a * mp.expm1(u), l * a * mp.exp(u)
def _sin(u): return mp.sin(u), mp.cos(u)
def _hard_tanh(u):
    if u > 1: return mpf(1), mpf(0)
    if u < -1: return mpf(-1), mpf(0)
    return u, mpf(1)
def _sign(u): return (mpf(1) if u > 0 else mpf(-1)), mpf(0)
def _tanh_cubed(u):          # tanh(u^3), the custom activation of THEORY section 1
    t = mp.tanh(u ** 3)
    return t, 3 * u * u * (1 - t * t)

# name: (function returning (phi, phi'), kinks, odd?, singularity)
#   singularity: ('pole', d) nearest complex pole of phi(u) at |Im u| = d;
#                ('gauss', g) |phi(x+iy)| grows like exp(g y^2);  ('exp', 1) grows like exp(y)
ACT = {
    'linear':     (_linear,   [],      True,  ('exp', 0)),
    'relu':       (_relu,     [0],     False, None),
    'leaky_relu': (_leaky,    [0],     False, None),
    'tanh':       (_tanh,     [],      True,  ('pole', mp.pi / 2)),
    'erf':        (_erf,      [],      True,  ('gauss', mpf(1))),
    'sigmoid':    (_sigmoid,  [],      False, ('pole', mp.pi)),
    'softplus':   (_softplus, [],      False, ('pole', mp.pi)),
    'gelu':       (_gelu,     [],      False, ('gauss', mpf(1) / 2)),
    'silu':       (_silu,     [],      False, ('pole', mp.pi)),
    'elu':        (_elu,      [0],     False, None),
    'selu':       (_selu,     [0],     False, None),
    'sin':        (_sin,      [],      True,  ('exp', 1)),
    'hard_tanh':  (_hard_tanh, [-1, 1], True, None),
    'sign':       (_sign,     [0],     True,  None),
    # poles of tanh(u^3): nearest at |u| = (pi/2)^(1/3), |Im u| = that * sin 30 deg
    'tanh_cubed': (_tanh_cubed, [],    True,  ('pole', (mp.pi / 2) ** (mpf(1) / 3) / 2)),
}


# ---------------------------------------------------------------- Gauss-Legendre
@lru_cache(None)
def gl(n, dps):
    """n Gauss-Legendre nodes/weights on [-1,1]."""
    with mp.workdps(dps + 8):
        out = []
        for k in range(n):
            x = mp.cos(mp.pi * (4 * k + 3) / (4 * n + 2))
            for _ in range(100):
                p0, p1 = mpf(1), x
                for j in range(2, n + 1):
                    p0, p1 = p1, ((2 * j - 1) * x * p1 - (j - 1) * p0) / j
                dp = n * (x * p1 - p0) / (x * x - 1)
                dx = p1 / dp
                x -= dx
                if abs(dx) < mpf(10) ** (-(dps + 4)): break
            p0, p1 = mpf(1), x
            for j in range(2, n + 1):
                p0, p1 = p1, ((2 * j - 1) * x * p1 - (j - 1) * p0) / j
            dp = n * (x * p1 - p0) / (x * x - 1)
            out.append((x, 2 / ((1 - x * x) * dp * dp)))
        return out


def fill(points, width):
    """Sorted break points with gaps no larger than width."""
    pts = sorted(set(points)); out = [pts[0]]
    for a, b in zip(pts, pts[1:]):
        k = max(1, int(mp.ceil((b - a) / width)))
        out += [a + (b - a) * i / k for i in range(1, k + 1)]
    return out


def nodes(breaks, n):
    xs, ws = [], []
    g = gl(n, mp.dps)
    for a, b in zip(breaks, breaks[1:]):
        m, r = (a + b) / 2, (b - a) / 2
        for x, w in g:
            xs.append(m + r * x); ws.append(r * w)
    return xs, ws


def breaks1d(name, q, R=None):
    """Break points in z: kinks, then graded 0.5,1,2,4.. /sqrt(q), never wider than 1."""
    q = mpf(q); rq = mp.sqrt(q)
    R = R or mp.sqrt(2 * mp.log(10) * (mp.dps + 6))
    pts = [-R, mpf(0), R]
    cand = [mpf(k) for k in ACT[name][1]]
    step = mpf(1) / 2
    grade = [mpf(i) / 4 for i in range(1, 13)] if name == 'tanh_cubed' else []
    while step < 200:
        grade.append(step); step = step * mpf(3) / 2
    for k in (cand or [mpf(0)]):
        cand = cand + [k + g for g in grade] + [k - g for g in grade]
    pts += [k / rq for k in cand if abs(k / rq) < R]
    pts = sorted(pts)
    keep = [pts[0]]
    for p in pts[1:]:                       # merge break points closer than rounding
        if p - keep[-1] > mpf('1e-20') * max(1 / rq, 1) * mpf('1e-3'): keep.append(p)
    return fill(keep, mpf(1))


def gauss1d(name, q, fs, n=44, breaks=None):
    """[E f(phi, phi', z) for f in fs] with u = sqrt(q) z."""
    q = mpf(q); rq = mp.sqrt(q); f = ACT[name][0]
    xs, ws = nodes(breaks or breaks1d(name, q), n)
    cols = [[] for _ in fs]; wt = []
    for z, w in zip(xs, ws):
        p, d = f(rq * z)
        wt.append(w * mp.exp(-z * z / 2))
        for c, g in zip(cols, fs): c.append(g(p, d, z))
    nrm = 1 / mp.sqrt(2 * mp.pi)
    return [mp.fdot(wt, c) * nrm for c in cols]


def moments1(name, q, n=44):
    """<phi^2>, <phi'^2>, d<phi^2>/dq = <(z^2-1)phi^2>/(2q)."""
    a, b, c = gauss1d(name, q, [lambda p, d, z: p * p, lambda p, d, z: d * d,
                                lambda p, d, z: (z * z - 1) * p * p], n=n)
    return a, b, c / (2 * mpf(q))


# ---------------------------------------------------------------- 2-D
PROD = ('phi_phi', 'dphi_dphi', 'phi2_phi2')


def _steps(name, qa, qb, c, s):
    kind, par = ACT[name][3]
    E = mpf('2.22') * mp.dps                       # aims at exp(-E) per lattice, 10^-0.96 dps
    def one(la, lb):                               # la, lb: du_a/dz, du_b/dz
        h = mp.sqrt(2 * mp.pi ** 2 / E)            # Gaussian weight alone
        if kind == 'pole':
            L = max(la, lb)
            if L > 0:
                d = par / L
                h = min(h, 2 * mp.pi * d / (E + d * d / 2)) if d < 2 * mp.pi / h else h
        elif kind == 'gauss':
            h = mp.sqrt(2 * mp.pi ** 2 / E / (1 + 4 * par * (la ** 2 + lb ** 2)))
        elif kind == 'exp':
            h = 2 * mp.pi / (2 * mp.pi / h + 2 * par * (la + lb))
        return h
    return one(mp.sqrt(qa), mp.sqrt(qb) * abs(c)), one(mpf(0), mp.sqrt(qb) * s)


def _lattice(name, qa, qb, c, s, h1, h2, shift, R):
    f, _, odd, _ = ACT[name]
    ra, rb = mp.sqrt(qa), mp.sqrt(qb)
    N1, N2 = int(R / h1) + 1, int(R / h2) + 1
    z2 = [(j + shift) * h2 for j in range(-N2, N2 + 1)]
    w2 = [mp.exp(-z * z / 2) for z in z2]
    v2 = [rb * s * z for z in z2]
    tot = [mpf(0)] * 3
    for i in range(0 if odd else -N1, N1 + 1):
        z1 = (i + shift) * h1
        if abs(z1) > R: continue
        r2 = mp.sqrt(R * R - z1 * z1)
        lo = max(0, int(mp.floor(-r2 / h2 - shift)) + N2); hi = min(len(z2), int(mp.ceil(r2 / h2 - shift)) + N2 + 1)
        pa, da = f(ra * z1)
        m = rb * c * z1
        P, D, P2 = [], [], []
        for v in v2[lo:hi]:
            p, d = f(m + v)
            P.append(p); D.append(d); P2.append(p * p)
        w = w2[lo:hi]
        W = mp.exp(-z1 * z1 / 2)
        if odd: W *= (1 if (i == 0 and shift == 0) else 2)   # (z1,z2) -> (-z1,-z2)
        tot[0] += W * pa * mp.fdot(w, P)
        tot[1] += W * da * mp.fdot(w, D)
        tot[2] += W * pa * pa * mp.fdot(w, P2)
    k = h1 * h2 / (2 * mp.pi)
    return [t * k for t in tot]


def _nested(name, qa, qb, c, s, n, R, wide):
    f, kinks = ACT[name][0], [mpf(k) for k in ACT[name][1]]
    ra, rb = mp.sqrt(qa), mp.sqrt(qb)
    pts = [-R, R] + [k / ra for k in kinks if abs(k / ra) < R]
    sc = s / abs(c) if c else mpf(10)
    if sc < mpf('1.3'):                           # smoothed kink of u_b seen from z1
        for k in kinks:
            for j in range(-9, 10):
                p = k / rb / c + mpf(3) / 2 * sc * j
                if abs(p) < R: pts.append(p)
    x1, w1 = nodes(fill(pts, wide), n)
    tot = [mpf(0)] * 3
    cache = {}
    for z1, w in zip(x1, w1):
        pa, da = f(ra * z1)
        m = c * z1
        P, D, P2, wt = [], [], [], []
        ks = [k for k in ((k / rb - m) / s for k in kinks) if abs(k) < R]
        for z, wz in zip(*nodes(fill([-R, R] + ks, wide), n)):
            p, d = f(rb * (m + s * z))
            wt.append(wz * mp.exp(-z * z / 2)); P.append(p); D.append(d); P2.append(p * p)
        W = w * mp.exp(-z1 * z1 / 2)
        tot[0] += W * pa * mp.fdot(wt, P)
        tot[1] += W * da * mp.fdot(wt, D)
        tot[2] += W * pa * pa * mp.fdot(wt, P2)
    return [t / (2 * mp.pi) for t in tot]


def pair(name, qa, qb, qab, check=True):
    """[E phi_a phi_b, E phi'_a phi'_b, E phi_a^2 phi_b^2], relative error estimate or None."""
    qa, qb, qab = mpf(qa), mpf(qb), mpf(qab)
    c = qab / mp.sqrt(qa * qb)
    s = mp.sqrt((qa * qb - qab * qab) / (qa * qb))
    if ACT[name][1]:
        return _nested(name, qa, qb, c, s, 32, mpf('12.4'), mpf('2.4')), None
    h1, h2 = _steps(name, qa, qb, c, s)
    R = mp.sqrt(mpf('4.3') * mp.dps)
    A = _lattice(name, qa, qb, c, s, h1, h2, mpf(0), R)
    if not check: return A, None
    B = _lattice(name, qa, qb, c, s, h1, h2, mpf(1) / 2, R)
    err = max(abs(x - y) / max(abs(x), mpf("1e-40")) if x != y else mpf(0) for x, y in zip(A, B) if abs(x) > mpf("1e-36"))
    return [(x + y) / 2 for x, y in zip(A, B)], err


def st(x, n=20):
    return None if x is None else mp.nstr(mpf(x), n)


def exact_double(x):
    """exact decimal expansion of the double x"""
    from decimal import Decimal
    return format(Decimal(float(x)), 'f') if abs(x) > 1e-4 or x == 0 else str(Decimal(float(x)))

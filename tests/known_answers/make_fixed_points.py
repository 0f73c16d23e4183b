"""fixed_points.json: fixed points of the variance map and of the normalised correlation map; critical line.

All q* in (0, 1e6): sign changes of Q(q)-q on a log grid (240 points from 1e-9; for |phi|<=1 up to the bound
Q <= sigma_w2+sigma_b2), each polished by Newton at 44 digits.  dQ/dq = sigma_w2/(2q) <(z^2-1) phi^2>.

All c*: C(c) = (sigma_w2 E phi_a phi_b + sigma_b2)/q* = sum_n p_n c^n with p_n >= 0, sum p_n = 1 (Hermite/Mehler),
so C is convex on [0,1] with C(1)=1: unless phi is affine there is exactly one more fixed point in [0,1) if chi_1 > 1 and
none if chi_1 <= 1.  On [-1,0): C(-t)+t = even(t) + (t - odd(t)) with odd(t) <= t odd(1), odd(1) <= 1, hence
a fixed point there needs even = 0 and t = 1, i.e. phi odd, sigma_b = 0, c = -1.  So the lists are complete.
c* < 1 is found by Newton from c = 0 (monotone for convex C); the slope is chi_c = sigma_w2 E phi'_a phi'_b.
"""
import json
import time

from make_common import *

BOUNDED = {'tanh', 'erf', 'sigmoid', 'sin', 'hard_tanh', 'sign', 'tanh_cubed'}
ZERO_AT_ZERO = {'linear', 'relu', 'leaky_relu', 'tanh', 'erf', 'gelu', 'silu', 'elu', 'selu', 'sin', 'hard_tanh', 'tanh_cubed'}
SLOPE0 = {'relu': '0.5', 'leaky_relu': '0.52', 'gelu': '0.25', 'silu': '0.25', 'tanh_cubed': '0', 'erf': 4 / mp.pi,
          'selu': None}                     # <phi'^2>_{q->0}; default 1; selu: l^2(1+a^2)/2

CASES = [('tanh', '1.05', '0.00002'), ('tanh', '1.5', '0.05'), ('tanh', '2.5', '0.1'), ('tanh', '0.9', '0'), ('tanh', '2.5', '0'),
         ('erf', '2', '0.05'), ('relu', '1.5', '0.1'), ('relu', '1.5', '0'), ('relu', '2', '0'), ('relu', '2', '0.1'),
         ('relu', '2.5', '0.1'), ('leaky_relu', '1.5', '0.1'), ('sin', '2', '0.1'), ('selu', '1.5', '0.1'), ('elu', '1.5', '0.1'),
         ('gelu', '1.5', '0.1'), ('silu', '1.5', '0.1'), ('sigmoid', '1.5', '0.1'), ('softplus', '1.5', '0.1'),
         ('tanh_cubed', '3', '0'), ('gelu', '3', '0'), ('gelu', '2.2', '0.01'), ('gelu', '2', '0.05'), ('silu', '2.5', '0.01'),
         ('hard_tanh', '1.5', '0.05'), ('sign', '1', '0.1'), ('linear', '1', '0'), ('linear', '1', '0.1'), ('linear', '0.5', '0.1')]
EXACT_AFFINE = {'linear': 1, 'relu': mpf(1) / 2, 'leaky_relu': mpf(13) / 25}     # <phi^2> = k q


def Q(name, q, sw, sb): return sw * moments1(name, q)[0] + sb


def scan(name, sw, sb):
    top = sw + sb if name in BOUNDED else mpf(10) ** 6
    with mp.workdps(16):
        qs = [mpf(10) ** (-9 + (mp.log10(top * mpf('1.01')) + 9) * i / 239) for i in range(240)]
        D = [(sw * moments1(name, q, n=16)[0] + sb - q) for q in qs]
    br = [(qs[i], qs[i + 1]) for i in range(239) if D[i] * D[i + 1] < 0]
    closest = min(abs(d) / q for d, q in zip(D, qs))
    return br, closest


def polish(name, sw, sb, lo, hi):
    with mp.workdps(44):
        q = (lo + hi) / 2
        for _ in range(60):
            a, b, d = moments1(name, q)
            F = sw * a + sb - q
            if F * (sw * moments1(name, lo)[0] + sb - lo) > 0 and lo < q < hi: lo = q
            elif lo < q < hi: hi = q
            new = q - F / (sw * d - 1)
            if not lo < new < hi: new = (lo + hi) / 2
            if abs(new - q) < mpf('1e-34') * q: q = new; break
            q = new
        a, b, d = moments1(name, q)
        return q, sw * d, sw * b


def c_points(name, sw, sb, q, chi1):
    """[(c, slope, stable)]"""
    odd = ACT[name][2]
    if name == 'sign':
        out = [(mpf(1), None, False)]
        c = mpf('0.5')                    # C(c) by quadrature, slope by Price (2/pi)/sqrt(1-c^2)
        for _ in range(40):
            F = (sw * pair(name, q, q, c * q)[0][0] + sb) / q - c
            sl = sw / q * 2 / mp.pi / mp.sqrt(1 - c * c)
            new = c - F / (sl - 1)
            if abs(new - c) < mpf('1e-26'): c = new; break
            c = new
        return [(c, sw / q * 2 / mp.pi / mp.sqrt(1 - c * c), True)] + out
    out = [(mpf(1), chi1, chi1 < 1)]
    if odd and sb == 0: out.append((mpf(-1), chi1, chi1 < 1))
    if name == 'linear' or chi1 <= 1: return sorted(out)
    c = mpf(0)
    if odd and sb == 0:
        ch = sw * pair(name, q, q, mpf(0))[0][1]
    else:
        for _ in range(60):
            v, e = pair(name, q, q, c * q)
            ch = sw * v[1]
            new = c - ((sw * v[0] + sb) / q - c) / (ch - 1)
            if abs(new - c) < mpf('1e-26'):
                c = new; ch = sw * pair(name, q, q, c * q)[0][1]; break
            c = new
        else: raise RuntimeError('no convergence')
    out.append((c, ch, ch < 1))
    return sorted(out)


def xi(s):
    if s is None or s == 0 or s > 1: return None
    return 'inf' if s == 1 else st(-1 / mp.log(abs(s)))


def fixed_point(name, sw, sb, q, sl, chi):
    cp = c_points(name, sw, sb, q, chi if name != 'sign' else None)
    stable = [(c, s) for c, s, ok in cp if ok and c >= 0]
    cs, cchi = stable[0] if stable else (None, None)
    return dict(q_star=st(q), dQ_dq=st(sl), stable=bool(sl < 1), chi_1=st(chi) if name != 'sign' else None,
                phase='n/a' if name == 'sign' else ('ordered' if chi < 1 else 'chaotic'),
                xi_q=xi(sl), c_fixed_points=[dict(c=st(c), slope=st(s) if s is not None else 'inf', stable=bool(ok)) for c, s, ok in cp],
                c_star=st(cs), chi_c_star=st(cchi), xi_c=xi(cchi))


def zero_point(name, sw):
    k = SLOPE0.get(name, '1')
    if name == 'selu': k = mpf(SELU_L) ** 2 * (1 + mpf(SELU_A) ** 2) / 2
    s = sw * mpf(k)
    return dict(q_star='0', dQ_dq=st(s), stable=(bool(s < 1) if s != 1 else None), chi_1=st(s), xi_q=xi(s),
                c_fixed_points=None, c_star=None, chi_c_star=None, xi_c=None)


def main():
    rows = []
    for name, sw_, sb_ in CASES:
        t0 = time.time(); sw, sb = mpf(sw_), mpf(sb_)
        row = dict(kind='fixed_points', activation=name, sigma_w2=sw_, sigma_b2=sb_)
        fps = []
        if sb == 0 and name in ZERO_AT_ZERO: fps.append(zero_point(name, sw))
        if name in EXACT_AFFINE:
            k = sw * EXACT_AFFINE[name]
            if k == 1 and sb == 0:
                row['status'] = 'continuum'
                row['note'] = ('every q >= 0 is a fixed point, dQ/dq = chi_1 = 1; c = 1 is marginal (slope 1)' if name != 'linear' else
                               'every q >= 0 and every c is a fixed point, all slopes 1')
                fps = []
            elif k >= 1 and sb > 0: row['status'] = 'none'; row['note'] = 'Q(q) - q >= sigma_b2 > 0: q^l -> infinity'
            elif sb == 0: row['status'] = 'zero_only'
            else:
                row['status'] = 'ok'; q = sb / (1 - k); a, b, d = moments1(name, q)
                assert abs(Q(name, q, sw, sb) / q - 1) < mpf('1e-28')
                fps.append(fixed_point(name, sw, sb, q, sw * d, sw * b))
        elif name == 'sign':
            row['status'] = 'ok'; fps.append(fixed_point(name, sw, sb, sw + sb, mpf(0), None))
            row['note'] = ('chi_1 is not applicable: the C-map slope at c = 1 is infinite while the almost-everywhere gradient factor is 0; '
                           'slopes here are dC/dc (Price)')
        else:
            br, closest = scan(name, sw, sb)
            for lo, hi in br:
                fps.append(fixed_point(name, sw, sb, *polish(name, sw, sb, lo, hi)))
            row['status'] = 'ok' if br else 'zero_only'
            row['scan_min_relative_distance'] = st(closest, 3)
        row['fixed_points'] = fps
        rows.append(row)
        print(name, sw_, sb_, row['status'], [(f['q_star'], f['dQ_dq'], f['chi_1'], f['c_star'], f['chi_c_star']) for f in fps], round(time.time() - t0, 1), flush=True)

    for name, q_ in [('tanh', '0.01'), ('tanh', '0.1'), ('tanh', '0.5'), ('erf', '0.01'), ('erf', '0.1'), ('erf', '0.5'),
                     ('gelu', '4'), ('hard_tanh', '0.1'), ('hard_tanh', '1'), ('silu', '30')]:
        with mp.workdps(44):
            q = mpf(q_); a, b, d = moments1(name, q)
            sw = 1 / b; sb = q - sw * a; sl = sw * d
        rows.append(dict(kind='critical_line', activation=name, q_star=q_, sigma_w2=st(sw), sigma_b2=st(sb), dQ_dq=st(sl),
                         valid=bool(sb >= 0 and abs(sl) < 1), xi_q=xi(sl)))
        print('critical', rows[-1], flush=True)

    # where |dQ/dq| = 1 (equivalently <phi phi''> = 0) and where sigma_b2 = 0 on the curve chi_1 = 1
    for name, lo, hi in [('gelu', 3, 4), ('silu', 10, 30)]:
        with mp.workdps(40):
            def slope(q):
                a, b, d = moments1(name, q); return d / b - 1
            q = mp.findroot(slope, (mpf(lo), mpf(hi)), solver='anderson', tol=mpf('1e-33'))
            a, b, d = moments1(name, q)
        rows.append(dict(kind='critical_line_threshold', activation=name, q_star=st(q), sigma_w2=st(1 / b), sigma_b2=st(q - a / b), dQ_dq=st(d / b),
                         note='|dQ/dq| = 1 here; the critical line is valid only for larger q*'))
        print(rows[-1], flush=True)
    with mp.workdps(40):                              # sigmoid: sigma_b2 = 0 on chi_1 = 1 (here |dQ/dq| < 1)
        def sb2(q):
            a, b, d = moments1('sigmoid', q); return q - a / b
        q = mp.findroot(sb2, (mpf(40), mpf(50)), solver='anderson', tol=mpf('1e-31'))
        a, b, d = moments1('sigmoid', q)
    rows.append(dict(kind='critical_line_threshold', activation='sigmoid', q_star=st(q), sigma_w2=st(1 / b), sigma_b2='0', dQ_dq=st(d / b),
                     note='sigma_b2 = 0 here; sigma_b2 < 0 for smaller q*, valid critical line for larger q*'))
    print(rows[-1], flush=True)

    # dropout fixed points: q = (sigma_w2/rho)<phi^2> + sigma_b2, C(c) = (sigma_w2 E phi phi + sigma_b2)/q
    for name, sw_, sb_, rho_ in [('tanh', '1.5', '0.05', '0.8'), ('tanh', '1.5', '0.05', '0.95'), ('tanh', '2.5', '0.1', '0.9'), ('erf', '1.2', '0.01', '0.9'),
                                 ('relu', '1.2', '0.1', '0.8'), ('gelu', '1.5', '0.1', '0.9'), ('tanh', '0.91', '0', '0.9'), ('linear', '0.4', '0.1', '0.8')]:
        sw, sb, rho = mpf(sw_), mpf(sb_), mpf(rho_)
        if name in EXACT_AFFINE:
            q = sb / (1 - sw / rho * EXACT_AFFINE[name]); a, b, d = moments1(name, q); sl, chi = sw / rho * d, sw / rho * b
            assert abs((sw / rho * a + sb) / q - 1) < mpf('1e-28')
        else:
            br, _ = scan(name, sw / rho, sb); assert len(br) == 1
            q, sl, chi = polish(name, sw / rho, sb, *br[0])
        c = mpf(0)
        for _ in range(60):                           # monotone Newton: C convex on [0,1], C(0) >= 0, C(1) < 1
            v, e = pair(name, q, q, c * q)
            new = c - ((sw * v[0] + sb) / q - c) / (sw * v[1] - 1)
            if abs(new - c) < mpf('1e-26'): break
            c = new
        c = new if abs(new) > mpf('1e-30') else mpf(0)
        ch = sw * pair(name, q, q, c * q)[0][1]
        assert ch <= rho
        rows.append(dict(kind='dropout_fixed_point', activation=name, sigma_w2=sw_, sigma_b2=sb_, keep_probability=rho_, q_star=st(q), dQ_dq=st(sl),
                         gradient_factor_diagonal=st(chi), c_star=st(c), chi_c_star=st(ch), chi_c_over_rho=st(ch / rho), xi_c=xi(ch), xi_c_bound=st(-1 / mp.log(rho))))
        print(rows[-1], flush=True)
    doc = dict(
        description="Fixed points of Q(q)=sigma_w2<phi^2>_q+sigma_b2 (all in (0,1e6), plus q=0 where sigma_b2=0 and phi(0)=0; there dQ/dq and chi_1 are the "
                    "limits q->0), dQ/dq, chi_1=sigma_w2<phi'^2>, and for each q*>0 all fixed points c in [-1,1] of "
                    "C(c)=(sigma_w2 E phi_a phi_b+sigma_b2)/q* with slope dC/dc=sigma_w2 E phi'_a phi'_b. c_star is the stable one in [0,1] (null if none). "
                    "xi=-1/log|slope|, null for slope>1 or 0, 'inf' for slope 1. status: ok | continuum | none (q->infinity) | zero_only. "
                    "tanh_cubed is tanh(u^3). stable refers to the q map only (slope<1). kind=critical_line: sigma_w2=1/<phi'^2>, "
                    "sigma_b2=q-sigma_w2<phi^2>, valid iff sigma_b2>=0 and |dQ/dq|<1. "
                    "kind=dropout_fixed_point: independent masks per input, q*=(sigma_w2/rho)<phi^2>+sigma_b2, C(c)=(sigma_w2 E phi_a phi_b+sigma_b2)/q*, unique c* in [0,1), "
                    "chi_c_star=sigma_w2 E phi'_a phi'_b <= rho, gradient_factor_diagonal=(sigma_w2/rho)<phi'^2>. sigma_w2 and sigma_b2 are the exact decimals (not the nearest doubles).",
        source="make_fixed_points.py, quadrature + Newton at 36-44 digits; c lists complete by convexity of the Hermite series (see script docstring). "
               "The affine maps of linear/relu/leaky_relu use q*=sigma_b2/(1-k), verified by quadrature.",
        format="rows: kind, activation, sigma_w2, sigma_b2, status, fixed_points[{q_star,dQ_dq,stable,chi_1,phase,xi_q,c_fixed_points[{c,slope,stable}],"
               "c_star,chi_c_star,xi_c}]; numbers are decimal strings with 20 significant digits",
        rows=rows)
    json.dump(doc, open(os.path.join(HERE, 'fixed_points.json'), 'w'), indent=1)


if __name__ == '__main__':
    main()

"""depth_to_fixed_point.json: first layer l with |chi^l/chi_1 - 1| < margin, chi^l = sigma_w2 <phi'^2>_{q^l}, from q^1."""
import json

from make_common import *
from make_fixed_points import polish, scan


def main():
    rows = []
    for name, sw_, sb_, q1 in [('tanh', '1.5', '0.05', '4.0'), ('tanh', '2.5', '0.1', '4.0'), ('tanh', '1.05', '0.00002', '1.0')]:
        sw, sb = mpf(sw_), mpf(sb_)
        br, _ = scan(name, sw, sb); assert len(br) == 1
        qs, sl, chi1 = polish(name, sw, sb, *br[0])
        q = mpf(q1); first = {}; traj = []
        for l in range(1, 200):
            a, b, d = moments1(name, q)
            dev = sw * b / chi1 - 1
            traj.append(dict(layer=l, q=st(q), chi=st(sw * b), chi_over_chi1_minus_1=st(dev)))
            for m in ('0.1', '0.01', '0.001'):
                if m not in first and abs(dev) < mpf(m): first[m] = l
            if len(first) == 3: break
            q = sw * a + sb
        devs = [abs(mpf(t['chi_over_chi1_minus_1'])) for t in traj]
        assert all(x > y for x, y in zip(devs, devs[1:]))         # monotone, so 'first' also means 'from then on'
        rows.append(dict(activation=name, sigma_w2=sw_, sigma_b2=sb_, q_1=q1, q_star=st(qs), chi_1=st(chi1), first_layer=first,
                         first_layer_1_percent=first['0.01'], trajectory=traj))
        print(name, sw_, sb_, first, [st(mpf(t['chi_over_chi1_minus_1']), 5) for t in traj][:20], flush=True)
    doc = dict(description="First layer l (l=1 is the first pre-activation, whose variance q^1 is given) at which |chi^l/chi_1 - 1| < margin; chi^l = sigma_w2<phi'^2>_{q^l}, "
                           "q^{l+1} = Q(q^l). |deviation| is monotone decreasing in all rows, so it stays within the margin. Margins 0.1, 0.01, 0.001.",
               source="make_depth_to_fixed_point.py, quadrature at 36+ digits",
               format="rows: activation, sigma_w2, sigma_b2, q_1, q_star, chi_1, first_layer {margin: layer}, first_layer_1_percent, trajectory[{layer,q,chi,chi_over_chi1_minus_1}]",
               rows=rows)
    json.dump(doc, open(os.path.join(HERE, 'depth_to_fixed_point.json'), 'w'), indent=1)


if __name__ == '__main__':
    main()

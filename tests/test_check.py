"""`check`: networks measured outside the package get its verdicts, every planted error is refuted, and what cannot
be tested never passes. Seeds are fixed; a false refutation in a test below has the chance alpha = 1e-3."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

import mcverify as mv
from mcverify import results
from mcverify.checking import LEAST
from mcverify.inputs import with_gram

X = with_gram([[1.0, 0.5], [0.5, 1.0]], 64)
NET = mv.mlp(64, [256] * 4, "relu", 2.0)
PREDICTION = mv.predict(NET, X)
MARGIN = 0.05  # the finite width takes 5/2n = 1% from a mean log-gain, and eight standard errors another 3.5%
ROOT = Path(__file__).parent.parent


def measured(gain=2.0, bias=0.0, samples=1024, width=256, depth=4, x=X, seed=0, draw=None, at=None):
    """Every network's q, metric, c, length and gradient Gram matrices in plain NumPy, ReLU and Gaussian weights.

    gain, bias: σ_w² and σ_b² of the layers `at` (all of them), the others being He's; draw(rng, shape) has unit
    variance."""
    rng = np.random.default_rng(seed)
    draw = draw or (lambda rng, shape: rng.standard_normal(shape, dtype=np.float32))
    out = {name: [] for name in ("q", "length", "grad_gram")}
    for _ in range(samples):
        signal, weights, pre, post = x, [], [], []
        for l in range(1, depth + 1):
            w2, b2 = (gain, bias) if at in (None, l) else (2.0, 0.0)
            w = np.sqrt(w2 / signal.shape[1]) * draw(rng, (width, signal.shape[1]))
            h = signal @ w.T + np.sqrt(b2) * draw(rng, width)
            signal = np.maximum(h, 0)
            weights.append(w), pre.append(h), post.append(signal)
        delta, deltas = rng.standard_normal((len(x), width)) / np.sqrt(width), []
        deltas.append(delta)
        for w, h in zip(weights[:0:-1], pre[-2::-1], strict=True):
            delta = (delta @ w) * (h > 0)
            deltas.append(delta)
        out["q"].append([h @ h.T / width for h in pre])
        out["length"].append([(s**2).mean(axis=1) for s in post])
        out["grad_gram"].append([d @ d.T for d in deltas[::-1]])
    out = {name: np.array(v) for name, v in out.items()}
    out["grad_norm2"] = np.diagonal(out["grad_gram"], axis1=-2, axis2=-1)
    d = np.sqrt(np.diagonal(out["q"], axis1=-2, axis2=-1))
    return out | {"c": out["q"] / (d[..., :, None] * d[..., None, :])}


@pytest.fixture(scope="module")
def good():
    return measured()


def verdicts(report):
    return {r.name: r.verdict for r in report.results}


def test_numpy_networks_get_the_package_s_own_verdict(good):
    report = mv.check(PREDICTION, good, margin=MARGIN)
    assert not [r.name for r in report.results if r.verdict == "refuted"]
    assert {"q.reference", "q.correlation", "length.gain", "grad_norm2.reference", "c.correlation"} <= {
        r.name for r in report.results if r.verdict == "confirmed"
    }
    own = mv.simulate(NET, X, samples=8192, replicates=True)
    for net in ({"prediction": PREDICTION}, {"prediction": NET, "x": X}):
        report = mv.check(samples=own, margin=MARGIN, **net)
        assert report.exit_code == 0, report.sentence
        assert report.sentence.startswith("No layer departs from the prediction by more than 5.00% in pre-activations")
        assert report.provenance["not_checked"] == "chi"


def test_the_default_of_a_library_against_he_names_the_layer_and_the_gain():
    """Uniform weights of variance 1/(3 fan_in), the same for biases: nn.Linear's default, without PyTorch."""
    uniform = measured(1 / 3, 1 / (3 * 256), draw=lambda rng, shape: rng.uniform(-(3**0.5), 3**0.5, shape))
    report = mv.check(PREDICTION, uniform, margin=MARGIN)
    assert report.exit_code == 1
    assert report.sentence.startswith("Layer 1, input 1: the mean square of the pre-activations is 0.33")
    assert "predicted 2: -83%; so do layers 2, 3, 4" in report.sentence
    (gain,) = [r for r in report.results if r.name == "length.gain"]
    assert "gain of the length is 0.1" in gain.message
    assert "too large for the finite width" in gain.message
    # What the library documents is confirmed where He's is refuted: the layers' own σ_w² and σ_b².
    true = mv.mlp(64, [256] * 4, "relu", 1 / 3, 1 / (3 * 256), weights="uniform")
    assert "refuted" not in verdicts(mv.check(true, uniform, X, margin=MARGIN)).values()


@pytest.mark.parametrize(("layer", "first"), [(1, 1), (3, 3), (4, 4)])
def test_a_gain_planted_in_one_layer_is_found_there(layer, first):
    report = mv.check(PREDICTION, measured(2.0 * 1.15, at=layer), margin=MARGIN)
    (r,) = [r for r in report.results if r.name == ("length.reference" if layer == 1 else "length.gain")]
    assert r.verdict == "refuted"
    assert r.message.startswith(f"Layer {first}, input 1: the ")
    assert report.exit_code == 1


def test_every_kind_of_error_is_refuted(good):
    """Each variable measured wrongly in one way, the rest right."""
    wrong = {
        "q": good["q"] * 256 / 255 * 1.1,  # wrong everywhere by a factor: gains do not show it
        "length": good["length"] * np.array([1, 1, 1.1, 1.1])[:, None],
        "grad_norm2": good["grad_norm2"] * np.array([1.1, 1, 1, 1])[:, None],
        "grad_gram": good["grad_gram"] * 256,  # a sum over units of v without its 1/n
        "c": good["q"] / good["q"][..., :1, :1] * np.array([[1, 0.9], [0.9, 1]]),
    }
    for name, values in wrong.items():
        if name == "c":
            values = good["c"] * np.array([[1, 0.9], [0.9, 1]])
        assert mv.check(PREDICTION, {name: values}, margin=MARGIN).exit_code == 1, name
    swapped = with_gram([[1.0, 0.5], [0.5, 2.0]], 64)
    ordered = mv.predict(NET, swapped)
    inputs_exchanged = measured(x=swapped[::-1], samples=LEAST)
    assert mv.check(ordered, {"length": inputs_exchanged["length"]}, margin=MARGIN).exit_code == 1


def test_a_narrow_network_s_message_says_that_width_may_be_the_reason():
    net = mv.mlp(64, [32] * 4, "relu", 2.0)
    own = mv.simulate(net, X, samples=20_000, replicates=True)
    r = next(r for r in mv.check(net, own, X).results if r.name == "length.gain")
    assert r.verdict == "refuted"
    assert "could be no more than the finite width" in r.message
    # 5/2n, what theory gives: half of 5/n, the variance of a ReLU layer's gain.
    assert abs(r.estimate[0] + 2.5 / 32) < 0.02


def test_files_are_read_and_damaged_ones_refused(good, tmp_path):
    np.savez(tmp_path / "s.npz", length=good["length"])
    results.save(mv.simulate(NET, X, samples=300, replicates=True), tmp_path / "s.nc")
    direct = mv.check(PREDICTION, {"length": good["length"]}, margin=MARGIN)
    assert mv.check(PREDICTION, tmp_path / "s.npz", margin=MARGIN).results == direct.results
    assert len(mv.check(PREDICTION, str(tmp_path / "s.nc")).results) == 13
    for name in ("s.npz", "s.nc"):
        whole = (tmp_path / name).read_bytes()
        for cut in (0, 10, len(whole) // 2, len(whole) - 20):
            (tmp_path / f"cut.{name}").write_bytes(whole[:cut])
            with pytest.raises(mv.InputError, match="file: got"):
                mv.check(PREDICTION, tmp_path / f"cut.{name}")
    (tmp_path / "foreign.nc").write_text("a,b\n1,2\n")
    np.savez(tmp_path / "pickled.npz", length=np.array([{}, None], dtype=object))
    for name in ("foreign.nc", "pickled.npz", "absent.nc"):
        with pytest.raises(mv.InputError, match="file: got"):
            mv.check(PREDICTION, tmp_path / name)


BAD = {
    "lenght": (lambda g: {"lenght": g["length"]}, "did you mean 'length'"),
    "nothing": (lambda g: {}, "must hold at least one"),
    "one network": (lambda g: {"length": g["length"][:1]}, "at least 2"),
    "a layer short": (lambda g: {"length": g["length"][:, 1:]}, r"\(replicates, 4 layers, 2 inputs\)"),
    "an input short": (lambda g: {"q": g["q"][..., :1]}, "4 layers, 2 inputs, 2 inputs"),
    "no replicates": (lambda g: {"length": g["length"].mean(axis=0)}, "replicates, 4 layers"),
    "replicates that differ": (lambda g: {"q": g["q"], "length": g["length"][1:]}, "same number of replicates"),
    "text": (lambda g: {"length": "long"}, "array of real numbers"),
    "complex": (lambda g: {"length": g["length"] * 1j}, "array of real numbers"),
    "negative": (lambda g: {"length": -g["length"]}, "cannot be negative"),
    "no Gram matrix": (lambda g: {"q": g["q"] * np.array([[1, 3], [3, 1]])}, "no Gram matrix"),
    "asymmetric": (lambda g: {"q": g["q"] * np.array([[1, 0.5], [1, 1]])}, "symmetric"),
    "copies": (lambda g: {"length": np.tile(g["length"][:300], (2, 1, 1))}, "independently"),
    "the prediction": (lambda g: {"length": np.tile(PREDICTION["length"].values, (999, 1, 1))}, "independently"),
    "a list": (lambda g: [g["length"]], "must be a mapping"),
    "means": (lambda g: mv.simulate(NET, X, samples=10), "replicates=True"),
    "cotangent": (lambda g: mv.simulate(NET, X, 300, replicates=True, cotangent="shared"), "cotangent"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_samples_get_one_line(good, name):
    make, told = BAD[name]
    with pytest.raises(mv.InputError, match=told) as caught:
        mv.check(PREDICTION, make(good))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prediction", "more", "told"),
    [
        (PREDICTION.drop_vars("length"), {}, "has no length"),
        (NET, {}, "is needed beside a network"),
        (PREDICTION, {"x": X}, "goes with a network"),
        (3, {}, "must be what predict"),
        (PREDICTION, {"margin": 0.0}, "margin"),
        (PREDICTION, {"alpha": 2.0}, "alpha"),
    ],
)
def test_bad_predictions_get_one_line(good, prediction, more, told):
    with pytest.raises(mv.InputError, match=told):
        mv.check(prediction, {"length": good["length"]}, **more)


def test_one_input_has_no_correlations(good):
    with pytest.raises(mv.InputError, match="takes two inputs"):
        mv.check(mv.predict(NET, X[:1]), {"c": good["c"][..., :1, :1], "length": good["length"][..., :1]})


def holes(values, number, value=np.nan):
    values = values.copy()
    values[:number, 2, 0] = value
    return values


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: v[: LEAST - 1], "256 are needed"),
        (lambda v: v[:2], "256 are needed"),
        (lambda v: holes(v, 3), "3 networks have values that are not finite"),
        (lambda v: holes(v, 1, np.inf), "1 networks have values that are not finite"),
        (lambda v: holes(v, 200, 0.0), "20% of the networks have a dead layer"),
        (lambda v: np.concatenate([v[:, :2], 0 * v[:, :2] + v[:1, :2]], axis=1), "the same value in all networks"),
    ],
)
def test_what_cannot_be_tested_is_undecided_and_says_why(good, change, told):
    if told.startswith("the same"):
        values = good["length"].copy()
        values[:, 2:] = values[:, 1:2] * np.ones((2, 1))  # gains of exactly one, as predicted, in every network
        samples = {"length": values}
    else:
        samples = {"length": change(good["length"])}
    report = mv.check(PREDICTION, samples, margin=0.1)
    r = report.results[-1]
    assert (r.name, r.verdict) == ("length.gain", "undecided")
    assert told in r.message
    assert report.exit_code == 3
    assert "Undecided" in report.sentence


def test_a_few_dead_networks_are_left_out_and_told(good):
    report = mv.check(PREDICTION, {"length": holes(good["length"], 5, 0.0)}, margin=0.05)
    assert "5 networks had a dead layer and are left out" in report.results[1].message


def test_heavy_tails_ask_for_more_networks():
    """Lengths of three units: the gain's logarithm is skewed, and 300 networks do not make its mean Gaussian."""
    net = mv.mlp(64, [3] * 3, "tanh", 2.0)
    own = mv.simulate(net, X, samples=300, replicates=True)
    r = mv.check(net, own[["grad_norm2"]], X, margin=0.3).results[1]
    assert r.verdict == "undecided"
    assert "too skewed" in r.message


def test_given_cotangents_and_parallel_gradients_are_not_drawn():
    """The reference layer of gradients is the measurer's own: it may be the same in every network, and is checked."""
    v = np.zeros((2, 256))
    v[:, 0] = 1.0
    own = mv.simulate(NET, X, samples=4096, replicates=True, cotangent=v)[["grad_gram", "metric"]]
    report = mv.check(NET, own, X, margin=0.05, cotangent=v)
    assert report.exit_code == 0, report.sentence
    double = own.assign(grad_gram=4 * own.grad_gram)
    r = mv.check(NET, double, X, margin=0.05, cotangent=v).results
    assert [q.name for q in r if q.verdict == "refuted"] == ["grad_gram.reference"]


def test_false_refutations_and_confirmations_at_the_margin_keep_their_level():
    """At the least number of networks, with the skewed log-gains of a ReLU layer of 20 units, a truth at the margin
    is confirmed, and refuted, at most twice as often as for Gaussian data: the promise of LEAST."""
    rng, width, runs = np.random.default_rng(5), 20, 20_000
    active = np.maximum(rng.binomial(width, 0.5, (runs, LEAST)), 1)
    gains = np.log(rng.chisquare(active))
    many = np.log(rng.chisquare(np.maximum(rng.binomial(width, 0.5, 10**7), 1)))
    t = (gains.mean(axis=1) - many.mean()) / (gains.std(axis=1, ddof=1) / np.sqrt(LEAST))
    skewness = np.abs(((many - many.mean()) ** 3).mean() / many.std() ** 3)
    assert 0.7 < skewness < 1.0
    from scipy.stats import binom
    from scipy.stats import t as student

    for level in (1e-2, 1e-3):
        reach = student.isf(level, LEAST - 1)
        for hits in ((t > reach).sum(), (t < -reach).sum()):
            assert hits <= binom.ppf(1 - 1e-6, runs, 2 * level)


def test_the_pytorch_example_names_the_layer(capsys):
    pytest.importorskip("torch", reason="PyTorch is optional; the same check runs in NumPy above")
    runpy.run_path(str(ROOT / "examples" / "pytorch_default_mlp.py"))
    told = capsys.readouterr().out
    assert told.startswith("Layer 1, input 1: the mean square of the pre-activations is 0.3")
    assert "predicted 2: -83%" in told

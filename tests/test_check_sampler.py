"""check_sampler on right and wrong initialisers: NumPy's, this package's, and PyTorch's and JAX's own where they are
installed. Fixed seeds; thresholds on rates are binomial quantiles at a false-alarm rate of 1e-6."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

import mcverify as mv
from mcverify.initialisers import INITIALISERS, initialiser
from mcverify.initialisers import fan as fan_of
from mcverify.kernels.backends import backend
from mcverify.samplers import check as sampler_check
from mcverify.samplers.draws import overlap_spread, overlaps
from mcverify.samplers.statements import statements
from mcverify.statistics.evidence import mde, p_value
from mcverify.statistics.multiplicity import holm
from mcverify.statistics.unit_laws import UNIT_LAWS
from mcverify.streams import Role, Site, stream_key
from mcverify.weights import TRUNCATED_VARIANCE

N, n = 96, 60  # fan_out, fan_in; no two of the documented variances coincide on them
FEW = 200_000  # entries that refute what is wrong; a million confirm what is right


def rng(*key):
    return np.random.default_rng([20261123, *key])


def verdicts(report):
    return {r.name.rpartition(".")[2]: r.verdict for r in report.results}


def refuted(report):
    return {name for name, v in verdicts(report).items() if v == "refuted"}


def confirmed(report):
    assert verdicts(report) == dict.fromkeys(verdicts(report), "confirmed"), report.sentence
    assert report.exit_code == 0
    assert report.sentence.startswith("The sampler is as documented: ")
    return True


def qr(shape, g, signs=True):
    """A Haar matrix by Stewart's way (1980), or as QR leaves it."""
    wide = shape[0] < shape[1]
    q, r = np.linalg.qr(g.normal(size=shape[::-1] if wide else shape))
    q = q * np.sign(np.diagonal(r)) if signs else q
    return q.T if wide else q


def unit(law, g, shape=(N, n)):
    return UNIT_LAWS[law].quantile(g.random(shape))


# ---- right samplers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, row in INITIALISERS.items() if row.law != "orthogonal"])
def test_every_row_is_confirmed_on_weights_drawn_as_it_says(name):
    row, g = initialiser(name), rng(0)
    sd = math.sqrt(row.sigma_w2 / fan_of(row.fan_mode, n, N))
    confirmed(mv.check_sampler(lambda: (sd * unit(row.law, g)).astype(np.float32), name))


@pytest.mark.parametrize("shape", [(64, 48), (48, 48), (40, 80)])
def test_haar_matrices_are_confirmed(shape):
    g = rng(1)
    report = mv.check_sampler(lambda: (1.5 * qr(shape, g)).astype(np.float32), "orthogonal", sigma_w2=2.25)
    confirmed(report)
    assert set(verdicts(report)) == {"variance", "mean", "fresh", "orthogonality", "haar"}


@pytest.mark.parametrize("law", ["gaussian", "uniform", "truncated_normal", "rademacher", "orthogonal"])
def test_this_packages_own_samplers_are_confirmed(law):
    """The compiled draws, by their addresses: the seed that draw is given is the replicate."""
    _, kernels = backend("auto")
    shape = (64, 48)

    def draw(seed):
        site = Site(stream_key(0), 0, seed, 1)
        return kernels.draw(site, Role.WEIGHT, law, *shape, np.dtype(np.float32))[0] / np.float32(math.sqrt(shape[1]))

    confirmed(mv.check_sampler(draw, law, sigma_w2=1.0, fan_mode="fan_in"))


@pytest.mark.parametrize("shape", [(8, 500), (500, 8)])
def test_long_shapes_get_as_many_draws_as_decide(shape):
    g = rng(2)
    confirmed(mv.check_sampler(lambda: g.normal(size=shape) * math.sqrt(1 / shape[0]), "gaussian", fan_mode="fan_out"))


def test_numpy_generators_directly():
    g = rng(3)
    confirmed(mv.check_sampler(lambda: g.standard_normal((N, n), dtype=np.float32), "gaussian", sigma_w2=float(n)))


# ---- wrong samplers -------------------------------------------------------------------------------------

HE = math.sqrt(2 / n)


def one_pair_of_rows(g):
    w = HE * g.normal(size=(N, n))
    w[7] = w[3]
    return w


def columns_with_random_signs(g):
    w = HE * g.normal(size=(N, n))
    w[:, 1] = w[:, 0] * g.choice([-1.0, 1.0])
    return w


def common_part(g):
    """Entries keep their law; rows share a tenth of their variance."""
    return HE * (math.sqrt(0.9) * g.normal(size=(N, n)) + math.sqrt(0.1) * g.normal(size=(1, n)))


WRONG = {
    "fan_out for fan_in": (lambda g: math.sqrt(2 / N) * g.normal(size=(N, n)), "he_normal", "variance",
                           "The variance is 2/fan_out, not 2/fan_in."),
    "fan_out and no gain": (lambda g: math.sqrt(1 / N) * g.normal(size=(N, n)), "he_normal", "variance",
                            "The variance is 1/fan_out, not 2/fan_in."),
    "no gain": (lambda g: math.sqrt(1 / n) * g.normal(size=(N, n)), "he_normal", "variance",
                "The variance is 1/fan_in, not 2/fan_in."),
    "fan_in for fan_avg": (lambda g: math.sqrt(1 / n) * unit("uniform", g), "glorot_uniform", "variance",
                           "The variance is 1/fan_in"),
    "variance for std": (lambda g: 2 / n * g.normal(size=(N, n)), "he_normal", "variance",
                         "a variance given as a standard deviation?"),
    "std for variance": (lambda g: math.sqrt(HE) * g.normal(size=(N, n)), "he_normal", "variance",
                         "a standard deviation given as a variance?"),
    "std for bound": (lambda g: HE * g.uniform(-1, 1, size=(N, n)), "he_uniform", "variance",
                      "a standard deviation given as the bound of a uniform law?"),
    "truncation not corrected": (lambda g: math.sqrt(TRUNCATED_VARIANCE) * HE * unit("truncated_normal", g),
                                 "jax_he_normal", "variance", "what truncation takes not given back?"),
    "a tenth too much": (lambda g: math.sqrt(1.1) * HE * g.normal(size=(N, n)), "he_normal", "variance",
                         "times 2/fan_in."),
    "uniform for normal": (lambda g: HE * unit("uniform", g), "he_normal", "kurtosis",
                           "The weights look uniform, not gaussian."),
    "normal for truncated": (lambda g: HE * g.normal(size=(N, n)), "jax_he_normal", "kurtosis",
                             "The weights look gaussian, not truncated_normal."),
    "truncated for normal": (lambda g: HE * unit("truncated_normal", g), "he_normal", "kurtosis",
                             "The weights look truncated_normal, not gaussian."),
    "two points for uniform": (lambda g: HE * unit("rademacher", g), "he_uniform", "kurtosis",
                               "The weights look rademacher, not uniform."),
    "heavy tails": (lambda g: HE / math.sqrt(2) * g.standard_t(4, size=(N, n)), "he_normal", "distribution",
                    "not"),
    "three points of kurtosis three": (
        lambda g: HE * math.sqrt(3) * g.choice([-1.0, 0.0, 0.0, 0.0, 0.0, 1.0], size=(N, n)), "he_normal",
        "distribution", "The weights do not follow the gaussian law, though nothing else is refuted."),
    "a mean": (lambda g: HE * (0.03 + g.normal(size=(N, n))), "he_normal", "mean",
               "The mean is not zero but 0.03"),
    "rows in pairs": (lambda g: HE * np.repeat(g.normal(size=(N // 2, n)), 2, axis=0), "he_normal", "independence",
                      "Some rows are equal, up to a factor."),
    "one pair of rows": (one_pair_of_rows, "he_normal", "independence", "Some rows are equal, up to a factor."),
    "columns, up to their sign": (columns_with_random_signs, "he_normal", "independence",
                                  "Some columns are equal, up to a factor."),
    "rows that share a part": (common_part, "he_normal", "independence",
                               "The entries of a matrix are not independent of one another."),
    "QR without signs": (lambda g: qr((64, 48), g, signs=False), "orthogonal", "haar",
                         "The matrices are orthogonal but not Haar: some directions are preferred (the signs of a QR"),
    "QR without signs, square": (lambda g: qr((48, 48), g, signs=False), "orthogonal", "haar", "the signs of a QR"),
    "QR without signs, wide": (lambda g: qr((40, 80), g, signs=False), "orthogonal", "haar", "the signs of a QR"),
    "permutations with random signs": (lambda g: np.eye(48)[g.permutation(48)] * g.choice([-1.0, 1.0], 48),
                                       "orthogonal", "haar", "orthogonal but not Haar: some directions are preferred."),
    "gaussian for orthogonal": (lambda g: g.normal(size=(64, 48)) / 8, "orthogonal", "orthogonality",
                                "The columns are not orthonormal up to a factor"),
    "the other side's scale": (lambda g: math.sqrt(64 / 48) * qr((64, 48), g), "orthogonal", "variance",
                               "The variance is 1/fan_in, not 1/fan_max."),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refuted_and_said(name):
    draw, law, statement, words = WRONG[name]
    g = rng(4)
    entries = 1_000_000 if name == "one pair of rows" else FEW  # one pair among 4,560
    report = mv.check_sampler(lambda: draw(g), law, entries=entries)
    assert report.exit_code == 1
    assert statement in refuted(report), verdicts(report)
    assert words in report.sentence
    assert all(r.p_confirmation is not None for r in report.results if r.verdict == "refuted")


def test_a_true_variance_stands_where_rows_depend():
    """Standard errors follow the spread between matrices: what is wrong elsewhere does not refute the variance."""
    g = rng(5)
    repeated = (HE * np.repeat(g.normal(size=(4, n)), N // 4, axis=0) for _ in iter(int, 1))
    report = mv.check_sampler(lambda: next(repeated), "he_normal", entries=FEW)
    assert "independence" in refuted(report)
    assert "variance" not in refuted(report)


def test_a_frozen_seed_is_told_before_anything_else():
    report = mv.check_sampler(lambda: HE * rng(6).normal(size=(N, n)), "he_normal", entries=FEW)
    assert "fresh" in refuted(report)
    assert "(a frozen seed?)" in report.sentence
    turns = iter(range(10**9))
    report = mv.check_sampler(lambda: HE * rng(6, next(turns) % 3).normal(size=(N, n)), "he_normal", entries=FEW)
    assert "fresh" in refuted(report)


def test_draws_that_drift_are_refuted():
    g = rng(7)
    kept = [g.normal(size=(N, n))]

    def draw():
        kept[0] = 0.1 * kept[0] + math.sqrt(1 - 0.01) * g.normal(size=(N, n))
        return HE * kept[0]

    report = mv.check_sampler(draw, "he_normal", entries=FEW)
    assert "Successive draws are not independent: their correlation is 0." in report.sentence


def test_too_few_entries_are_undecided_with_what_they_would_take():
    g = rng(8)
    report = mv.check_sampler(lambda: HE * g.normal(size=(N, n)), "he_normal", entries=100_000, margin=0.005)
    assert report.exit_code == 3
    assert "variance" in report.sentence
    assert "entries would decide" in report.sentence


def test_a_report_repeats_itself_and_carries_its_numbers():
    def once():
        g = rng(9)
        return mv.check_sampler(lambda: HE * g.normal(size=(N, n)), "he_normal", entries=FEW, rng=3)

    first, second = once(), once()
    assert [r.p for r in first.results] == [r.p for r in second.results]
    assert first.seed == 3
    assert first.provenance["kind"] == "sampler"
    variance = first.results[0]
    assert variance.prediction == [2.0]
    assert variance.rival_name == "scaled by fan_avg"
    assert variance.rival == pytest.approx([2 * n / ((N + n) / 2)])
    for r in first.results:
        assert r.margin_reason
        assert r.source
        if r.rival:  # beyond two margins somewhere, so that a confirmation excludes it
            gaps = [abs(a - b) > 2 * m for a, b, m in zip(r.rival, r.prediction, r.margin, strict=True)]
            assert any(gaps), r.name


def test_draw_may_take_a_seed():
    seeds = []

    def draw(seed):
        seeds.append(seed)
        return HE * np.random.default_rng(seed).normal(size=(N, n))

    assert mv.check_sampler(draw, "he_normal", entries=FEW).exit_code in (0, 3)
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) <= max(seeds) < 2**31  # what every library takes


# ---- error rates ----------------------------------------------------------------------------------------


def null_p_values(law, shape, run, scale=1.0):
    """Each statement's p-value at 10,000 entries, a tenth of what check_sampler takes: its hardest case."""
    g = rng(10, run)
    documented = sampler_check._documented(law, None, None)
    sd = math.sqrt(scale / shape[1])
    draws = sampler_check._draw(lambda: sd * unit(law, g, shape), documented, 10_000, 0.02, 0, g)
    return statements(documented, draws, 0.02, g)


@pytest.mark.parametrize(
    ("law", "shape", "runs"), [("gaussian", (12, 9), 1_000), ("rademacher", (8, 16), 600), ("uniform", (40, 20), 600)]
)
def test_right_samplers_are_refuted_no_more_often_than_promised(law, shape, runs):
    smallest = [holm(np.array([p_value(s.evidence) for s in null_p_values(law, shape, r)])).min() for r in range(runs)]
    for level in (0.05, 0.01):
        hits = int((np.array(smallest) <= level).sum())
        assert hits <= binom.ppf(1 - 1e-6, runs, level)
    assert min(smallest) < 0.2  # a test that never fires is dead


def test_the_variance_is_refuted_at_its_mde():
    e = null_p_values("gaussian", (12, 9), 0)[0].evidence
    shift = mde(e, 1e-3, power=0.9)[0]
    seen = [p_value(null_p_values("gaussian", (12, 9), r, 1 + shift)[0].evidence) <= 1e-3 for r in range(400)]
    # The error grows with the variance it is measured on, by `shift`, which moves the power from 90% to 85%.
    assert 400 - sum(seen) <= binom.ppf(1 - 1e-6, 400, 0.15)


@pytest.mark.parametrize("law", ["gaussian", "uniform", "rademacher"])
def test_overlaps_have_their_mean_and_spread(law):
    g = rng(11)
    found = np.array([overlaps(unit(law, g, (10, 16))) for _ in range(6_000)])
    spread = overlap_spread(10, 16, found[:, 2].mean())
    for i, mean in enumerate((0.0, 1.0)):
        assert abs(found[:, i].mean() - mean) < 5 * spread[i] / math.sqrt(len(found))
        assert found[:, i].std() == pytest.approx(spread[i], rel=0.06)  # 5 standard errors of a standard deviation


# ---- bad input ------------------------------------------------------------------------------------------


def alternating():
    shapes = iter([(N, n), (N, n), (n, N)])
    return lambda: rng(12).normal(size=next(shapes))


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (np.zeros((N, n)), "must be callable"),
        (lambda a, b: None, "must take nothing, or one seed"),
        (lambda *, size: None, "must take nothing, or one seed"),
        (lambda: rng(12).normal(size=N), "must return arrays of shape"),
        (lambda: rng(12).normal(size=(7, 60)), "each at least 8"),
        (lambda: rng(12).normal(size=(60, 60)), "far from square"),
        (lambda: rng(12).normal(size=(100, 98)), "far from square"),
        (lambda: np.where(np.arange(n) == 3, np.nan, rng(12).normal(size=(N, n))), "values not finite"),
        (lambda: rng(12).integers(9, size=(N, n)), "must return float32 or float64"),
        (lambda: rng(12).normal(size=(N, n)).astype(np.float16), "must return float32 or float64"),
        (lambda: rng(12).normal(size=(N, n)) + 0j, "must return float32 or float64"),
        (lambda: np.zeros((N, n)), "must return weights that vary"),
        (lambda: "weights", "must return float32 or float64"),
        (lambda: np.ma.masked_less(rng(12).normal(size=(N, n)), 0), "must return every weight"),
        (lambda: [[1.0], [1.0, 2.0]], "must return an array of numbers"),
        (alternating(), "must return one shape at every call"),
    ],
)
def test_bad_draws_are_refused_in_one_line(draw, words):
    with pytest.raises(mv.InputError, match=f"^draw: got .*{words}") as error:
        mv.check_sampler(draw, "he_normal")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"law": "he_norml"}, r"law: got 'he_norml'.*did you mean 'he_normal'"),
        ({"law": 3}, "law: got 3"),
        ({"law": "he_normal", "sigma_w2": 2.0}, "sigma_w2: got 2.0; must be left out"),
        ({"law": "he_normal", "fan_mode": "fan_in"}, "fan_mode: got 'fan_in'; must be left out"),
        ({"law": "gaussian", "sigma_w2": -1.0}, "sigma_w2: got -1.0"),
        ({"law": "gaussian", "fan_mode": "fan_inn"}, "did you mean 'fan_in'"),
        ({"law": "gaussian", "entries": 10}, "entries: got 10"),
        ({"law": "gaussian", "margin": 0.0}, "margin: got 0.0"),
        ({"law": "gaussian", "alpha": 2.0}, "alpha: got 2.0"),
        ({"law": "gaussian", "rng": "one"}, "rng: got 'one'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_drawn(options, words):
    def draw():
        raise AssertionError("drawn")

    with pytest.raises(mv.InputError, match=words) as error:
        mv.check_sampler(draw, **options)
    assert "\n" not in str(error.value)


# ---- PyTorch --------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    module = pytest.importorskip("torch", reason="PyTorch is not installed")
    module.manual_seed(20261124)
    return module


def filled(torch, fill, shape=(N, n), **options):
    """draw() -> a fresh tensor of this shape, filled by a function of torch.nn.init."""
    return lambda: getattr(torch.nn.init, fill)(torch.empty(shape), **options)


@pytest.mark.parametrize(
    ("fill", "options", "law"),
    [
        ("kaiming_normal_", {}, "kaiming_normal"),
        ("kaiming_uniform_", {"nonlinearity": "relu"}, "kaiming_uniform"),
        ("kaiming_uniform_", {"a": math.sqrt(5)}, "pytorch_linear"),
        ("xavier_normal_", {}, "xavier_normal"),
        ("xavier_uniform_", {}, "xavier_uniform"),
        ("kaiming_normal_", {"nonlinearity": "linear"}, "lecun_normal"),
        ("orthogonal_", {}, "orthogonal"),
    ],
)
def test_pytorchs_initialisers_are_confirmed(torch, fill, options, law):
    confirmed(mv.check_sampler(filled(torch, fill, **options), law))


def test_pytorchs_linear_is_confirmed_and_is_not_hes(torch):
    def draw():
        return torch.nn.Linear(n, N).weight  # a parameter, with a gradient

    confirmed(mv.check_sampler(draw, "pytorch_linear"))
    assert "The variance is 1/(3 fan_in), not 2/fan_in." in mv.check_sampler(draw, "he_uniform", entries=FEW).sentence


def test_pytorchs_gains_and_modes(torch):
    gain = torch.nn.init.calculate_gain
    draw = filled(torch, "kaiming_normal_", mode="fan_out", nonlinearity="relu")
    confirmed(mv.check_sampler(draw, "gaussian", sigma_w2=2.0, fan_mode="fan_out"))
    draw = filled(torch, "xavier_normal_", gain=gain("tanh"))
    confirmed(mv.check_sampler(draw, "gaussian", sigma_w2=(5 / 3) ** 2, fan_mode="fan_avg"))
    draw = filled(torch, "orthogonal_", (40, 80), gain=gain("relu"))
    confirmed(mv.check_sampler(draw, "orthogonal", sigma_w2=2.0))


@pytest.mark.parametrize(
    ("fill", "shape", "options", "law", "words"),
    [
        # fans are read from the shape: weights kept (fan_in, fan_out) get the other one
        ("kaiming_normal_", (n, N), {}, "he_normal", "The variance is 2/fan_out, not 2/fan_in."),
        # a is the slope of a leaky ReLU, 0.01 as one is used to call it changes little, 1 halves the gain
        ("kaiming_normal_", (N, n), {"a": 1.0}, "he_normal", "The variance is 1/fan_in, not 2/fan_in."),
        # SELU's recommended gain is ¾, not the 1 that its fixed point needs
        ("kaiming_normal_", (N, n), {"nonlinearity": "selu"}, "lecun_normal", "The variance is 0.56"),
        # a and b are absolute, not in standard deviations: at small std nothing is truncated
        ("trunc_normal_", (N, n), {"std": HE}, "jax_he_normal", "The weights look gaussian, not truncated_normal."),
    ],
)
def test_pytorchs_pitfalls_are_refuted(torch, fill, shape, options, law, words):
    made = filled(torch, fill, shape, **options)
    report = mv.check_sampler(lambda: made().T if shape == (n, N) else made(), law, entries=FEW)
    assert report.exit_code == 1
    assert words in report.sentence


def test_pytorchs_qr_alone_is_not_haar(torch):
    report = mv.check_sampler(lambda: torch.linalg.qr(torch.randn(64, 48))[0], "orthogonal")
    assert refuted(report) >= {"haar"}
    assert "the signs of a QR factor not corrected?" in report.sentence


def test_a_tensor_in_half_precision_is_refused(torch):
    with pytest.raises(mv.InputError, match=r"^draw: .*must return"):
        mv.check_sampler(lambda: torch.randn(N, n, dtype=torch.bfloat16), "he_normal")


# ---- JAX ------------------------------------------------------------------------------------------------


@pytest.fixture
def jax():
    return pytest.importorskip("jax", reason="JAX is not installed")


@pytest.mark.parametrize(
    ("maker", "law"),
    [
        ("he_normal", "jax_he_normal"),
        ("glorot_normal", "jax_glorot_normal"),
        ("lecun_normal", "jax_lecun_normal"),
        ("he_normal", "keras_he_normal"),  # Keras documents the same laws
        ("glorot_normal", "keras_glorot_normal"),
        ("lecun_normal", "keras_lecun_normal"),
        ("he_uniform", "he_uniform"),
        ("glorot_uniform", "glorot_uniform"),
        ("lecun_uniform", "lecun_uniform"),
        ("orthogonal", "orthogonal"),
    ],
)
def test_jaxs_initialisers_are_confirmed(jax, maker, law):
    fill = jax.jit(getattr(jax.nn.initializers, maker)(), static_argnums=1)  # compiled once, not at every call
    confirmed(mv.check_sampler(lambda seed: fill(jax.random.key(seed), (n, N)).T, law))


def test_jaxs_he_normal_is_not_hes(jax):
    fill = jax.jit(jax.nn.initializers.he_normal(), static_argnums=1)
    report = mv.check_sampler(lambda seed: fill(jax.random.key(seed), (n, N)).T, "he_normal", entries=FEW)
    assert "The weights look truncated_normal, not gaussian." in report.sentence


def test_jaxs_kernels_not_transposed_are_told(jax):
    fill = jax.jit(jax.nn.initializers.he_uniform(), static_argnums=1)
    report = mv.check_sampler(lambda seed: fill(jax.random.key(seed), (n, N)), "he_uniform", entries=FEW)
    assert "The variance is 2/fan_out, not 2/fan_in." in report.sentence


def test_a_key_used_twice_is_a_frozen_seed(jax):
    fill, key = jax.nn.initializers.lecun_normal(), jax.random.key(0)
    report = mv.check_sampler(lambda: fill(key, (n, N)).T, "jax_lecun_normal", entries=100_000)
    assert "(a frozen seed?)" in report.sentence

"""Decoding as a user does it: starts, frames, files, baselines, and what is refused."""

import json
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write
from ase.units import fs

from omnicalc import OmniCalc, ParallelDecoder
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.card import DECODER_CARD
from omnicalc.decoding.baselines import (
    BALLISTIC,
    CONSTANT,
    ISSUE,
    MEAN,
    MEAN_RIGID,
    RIGID,
    START,
    baselines,
    mean_structure,
)
from omnicalc.decoding.card import read_decoder_card
from omnicalc.decoding.evaluation import DECODER, molecule_errors, table, verdict
from omnicalc.decoding.report import as_text, errors_against, integrate, physics, temperature
from omnicalc.decoding.start import from_two_frames, read_start
from omnicalc.decoding.start_batch import batch_of
from omnicalc.errors import InputError, OmniCalcError, OmniCalcWarning, WeightsError
from omnicalc.models.atom import rigid
from tests.command import omnicalc
from tests.tiny_decoder import moving, shaking, tiny_network, write_decoder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder") / "tiny"
    write_decoder(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(weights):
    return ParallelDecoder(weights)


def test_frames_are_those_of_the_network(decoder):
    start = moving()
    frames = decoder.decode(start, frames=4, horizon_fs=200.0)
    assert [f.info["time_fs"] for f in frames] == [50.0, 100.0, 150.0, 200.0]
    near = start.copy()
    near.positions -= start.positions.mean(0)
    batch, times = batch_of(near, [49.0, 50.0, 99.0, 100.0, 149.0, 150.0, 199.0, 200.0], torch.float32)
    with torch.inference_mode():
        wanted = tiny_network()(batch, times)[0].double().numpy() + start.positions.mean(0)
    assert np.abs(frames[1].positions - wanted[3]).max() < 1e-6
    assert np.abs(frames[1].get_velocities() * fs - (wanted[3] - wanted[2])).max() < 1e-6
    assert np.array_equal(frames[0].numbers, start.numbers)


def test_far_from_the_origin_nothing_is_lost(decoder):
    near, far = moving(), moving()
    far.positions += 5000.0
    a, b = (decoder.decode(x, frames=2)[-1].positions for x in (near, far))
    assert np.abs(b - 5000.0 - a).max() < 1e-3


def test_a_rollout_starts_again_from_the_end(decoder):
    start = moving()
    both = decoder.decode(start, frames=2, horizon_fs=100.0, rollout=2)
    first = decoder.decode(start, frames=2, horizon_fs=100.0)
    second = decoder.decode(first[-1], frames=2, horizon_fs=100.0)
    assert [f.info["time_fs"] for f in both] == [50.0, 100.0, 150.0, 200.0]
    assert np.array_equal(both[1].positions, first[1].positions)
    assert np.array_equal(both[3].positions, second[1].positions)


def test_beyond_the_training_it_warns_with_measured_errors(decoder, tmp_path):
    with pytest.warns(OmniCalcWarning, match=r"beyond the 500 fs .* 0.10 Å at 50 fs, 0.25 Å at 500 fs"):
        decoder.decode(moving(), frames=1, horizon_fs=600.0)
    with pytest.warns(UserWarning, match="the rollout's end at 800 fs is beyond"):
        decoder.decode(moving(), frames=1, horizon_fs=400.0, rollout=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # by ASE, of what it does with NumPy 2.5
        decoder.decode(moving(), frames=1, horizon_fs=500.0)
        decoder.decode(moving(), frames=1, horizon_fs=250.0, rollout=2)
    write_decoder(tmp_path / "unmeasured", accuracy={})
    with pytest.warns(UserWarning, match="not measured"):
        ParallelDecoder(tmp_path / "unmeasured").decode(moving(), frames=1, horizon_fs=600.0)


def test_what_cannot_be_decoded(decoder):
    still, periodic, unknown, two = moving(speed=0.0), moving(), moving("SH2"), moving("H2O")
    two += moving("H2O")
    two.positions[3:] += [3.0, 0.0, 0.0]
    periodic.set_cell([9, 9, 9])
    periodic.pbc = True
    wrong = ((still, "velocities are zero"), (periodic, "periodic"), (unknown, "does not know S"), (two, "2 molecules"))
    for atoms, message in wrong:
        with pytest.raises(InputError, match=message):
            decoder.decode(atoms)
    wrong = (
        ({"frames": 0}, "frames 0"),
        ({"rollout": 0}, "rollout 0"),
        ({"horizon_fs": -1.0}, "-1"),
        ({"horizon_fs": "500fs"}, "'500fs' fs"),
        ({"horizon_fs": 1e-3}, "0.1 fs or more a frame"),
    )
    for settings, message in wrong:
        with pytest.raises(InputError, match=message):
            decoder.decode(moving(), **settings)
    for times in ([0.0, 10.0], [20.0, 10.0], [-1.0], []):
        with pytest.raises(InputError, match="above 0 and not falling"):
            decoder.positions(moving(), np.array(times))
    with pytest.raises(InputError, match="of type list; one ase.Atoms"):
        decoder.decode([moving(), moving()])
    assert len(decoder.decode(moving(), frames=np.int64(2))) == 2


def test_what_decoders_do_not_know_of_is_refused(decoder):
    charged, triplet, heavy, fast = (moving() for _ in range(4))
    charged.info["charge"] = 1
    triplet.info["spin"] = 3
    heavy.set_masses(np.where(heavy.numbers == 1, 2.014, heavy.get_masses()))
    fast.set_velocities(fast.get_velocities() + [0.0, 0.0, 1.0 / fs])
    wrong = ((charged, "charge .1 "), (triplet, "spin 3"), (heavy, "mass of 2.014 amu"), (fast, "frames are missing"))
    for atoms, message in wrong:
        with pytest.raises(InputError, match=message):
            decoder.decode(atoms)
    radical = moving("CH3")
    radical.info["spin"] = 2
    assert decoder.decode(radical, frames=1)


def test_velocities_from_two_frames(tmp_path):
    later, before = moving(), moving()
    velocities = later.get_velocities() * fs
    before.positions -= 0.5 * velocities
    for atoms in (before, later):
        del atoms.arrays["momenta"]
    found = from_two_frames(before, later, 0.5)
    assert np.abs(found.get_velocities() * fs - velocities).max() < 1e-12
    write(tmp_path / "two.xyz", [before, later], format="extxyz")
    assert np.abs(read_start(tmp_path / "two.xyz", -1, 0.5).get_velocities() * fs - velocities).max() < 1e-6
    with pytest.raises(InputError, match="not known; give it: --spacing"):
        read_start(tmp_path / "two.xyz")
    with pytest.raises(InputError, match="no frame before it"):
        read_start(tmp_path / "two.xyz", 0, 0.5)
    with pytest.raises(InputError, match="at most 3 fs"):
        from_two_frames(before, later, 10.0)
    with pytest.raises(InputError, match="atoms change"):
        from_two_frames(before[::-1], later, 0.5)
    before.info["time_fs"], later.info["time_fs"] = 1.0, 1.5
    assert np.abs(from_two_frames(before, later, None).get_velocities() * fs - velocities).max() < 1e-12
    with pytest.raises(InputError, match="0.5 fs apart"):
        from_two_frames(before, later, 1.0)
    later.info["time_fs"] = "soon"
    with pytest.raises(InputError, match="time_fs is not one finite number"):
        from_two_frames(before, later, 1.0)
    write(tmp_path / "one.xyz", moving(), format="extxyz")
    with pytest.raises(InputError, match="velocities already"):
        read_start(tmp_path / "one.xyz", -1, 1.0)
    assert read_start(tmp_path / "one.xyz", -1, 1.0, spacing_is_for_others=True).has("momenta")


def test_decoders_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNICALC_HOME", str(tmp_path))
    card = write_decoder(tmp_path / "weights" / "tiny-a-1.0")
    for name in ("tiny", "tiny:a", "tiny:a@1.0"):
        assert ParallelDecoder(name).name_resolved == card.full_name == "tiny:a@1.0"
    assert "tiny:a@1.0  (a decoder" in omnicalc("models")
    for name in ("tiny:b", "tiny@2.0"):
        with pytest.raises(WeightsError, match="there is: tiny:a@1.0"):
            ParallelDecoder(name)
    with pytest.raises(OmniCalcError, match="tiny is a decoder, which has no energies"):
        OmniCalc("tiny")
    monkeypatch.chdir(tmp_path / "weights" / "tiny-a-1.0")
    assert ParallelDecoder(".").name_resolved == str(tmp_path / "weights" / "tiny-a-1.0")  # and not the card's name
    with pytest.raises(WeightsError, match="None is no model name"):
        ParallelDecoder(None)


def test_weights_that_cannot_be_used(weights, tmp_path):
    with pytest.raises(WeightsError, match="no decoder 'nonsense'"):
        ParallelDecoder("nonsense")
    with pytest.raises(WeightsError, match="decoder.toml"):
        ParallelDecoder(tmp_path)
    write_decoder(tmp_path / "changed")
    content = bytearray((tmp_path / "changed" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "changed" / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        ParallelDecoder(tmp_path / "changed")
    card = tmp_path / "changed" / DECODER_CARD
    card.write_text(card.read_text().replace("horizon_fs", "horizon"))
    with pytest.raises(WeightsError, match="missing: horizon_fs; unknown: horizon"):
        read_decoder_card(card)
    good = (weights / DECODER_CARD).read_text()
    for old, new, message in (
        ("horizon_fs = 500.0", "horizon_fs = inf", "horizon_fs = inf: a number in fs is needed"),
        ('citation = ["nobody"]', "citation = [1]", "a list of texts is needed"),
        ('dtype = "float32"', 'dtype = "int8"', "dtype = 'int8' cannot be used"),
    ):
        assert old in good
        card.write_text(good.replace(old, new))
        with pytest.raises(WeightsError, match=message):
            read_decoder_card(card)
    with pytest.raises(OmniCalcError, match="holds a decoder, which has no energies"):
        OmniCalc(weights)


def test_baselines():
    start, times = batch_of(moving(), [10.0, 200.0])
    mean = start.x[0] @ rigid.rotation(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)).T + 2.0
    found = baselines(start, times, mean)
    assert set(ISSUE) < set(found)
    assert torch.equal(found[START][0, 1], start.x[0])
    assert (found[BALLISTIC][0, 1] - start.x[0] - 200 * start.v[0]).abs().max() < 1e-12
    assert (found[MEAN][0, 0] - start.x[0]).abs().max() < 1e-9  # the mean is the start itself, turned
    assert (found[MEAN_RIGID] - found[RIGID]).abs().max() < 1e-9
    body = start.x[0, :2] - start.x[0, 2]  # constant rotation keeps all distances
    moved = found[CONSTANT][0, 1, :2] - found[CONSTANT][0, 1, 2]
    assert (body.norm(dim=1) - moved.norm(dim=1)).abs().max() < 1e-9
    assert set(baselines(start, times)) == {START, CONSTANT, BALLISTIC, RIGID}


def test_mean_structure_undoes_rotations():
    start, _ = batch_of(moving(), [1.0])
    turns = [rigid.rotation(torch.tensor([0.5 * k, 0.1, -0.2 * k], dtype=torch.float64)) for k in range(12)]
    frames = np.array([(start.x[0] @ t.T + k).numpy() for k, t in enumerate(turns)])
    mean = mean_structure(frames, start.numbers[0].numpy())
    laid = rigid.superposed(mean[None], start.x, start.numbers.double())
    assert (laid - start.x).abs().max() < 1e-9
    assert (torch.from_numpy(frames.mean(0)) - mean).abs().max() > 0.1


def test_errors_by_horizon():
    source = shaking("CH3OH", frames=200)
    errors = molecule_errors([tiny_network()], source, frames=2, starts=5, horizons=(20.0, 100.0))
    batch_starts = np.unique(np.linspace(0, len(source.starts(50)) - 1, 5).astype(int))
    chosen = source.starts(50)[batch_starts]
    wanted = np.mean([(source.x[c + 50] - source.x[c]) ** 2 for c in chosen])
    assert errors.s2s[START][1] == pytest.approx(wanted, rel=1e-5)
    assert errors.s2t[START][1] < errors.s2s[START][1]
    two = molecule_errors([tiny_network(0), tiny_network(1)], source, frames=2, starts=5, horizons=(20.0, 100.0))
    one = molecule_errors([tiny_network(1)], source, frames=2, starts=5, horizons=(20.0, 100.0))
    assert two.s2t[DECODER] == pytest.approx(0.5 * (errors.s2t[DECODER] + one.s2t[DECODER]))
    text = table([errors], "s2t", (20.0, 100.0))
    assert all(name in text for name in (*ISSUE, RIGID, MEAN_RIGID))
    assert "aligned mean structure" in verdict([errors], "s2t", (20.0, 100.0))
    with pytest.raises(InputError, match="no window"):
        molecule_errors([tiny_network()], source, horizons=(1e4,))


def test_physics_and_integration():
    start = moving()
    same = start.copy()
    same.info["time_fs"] = 5.0
    found = physics(start, [same], lambda a: (float(a.positions.sum()), np.zeros((9, 3))))
    assert found["bonds"] == 8 and found["frames"][1]["largest_bond_change_A"] == 0
    longer = same.copy()
    longer.positions[3] += [0, 0, 0.4]
    assert physics(start, [longer])["frames"][1]["largest_bond_change_A"] > 0.05
    assert found["frames"][1]["potential_energy_eV"] == 0
    drifting = start.copy()
    drifting.set_velocities(start.get_velocities() + 0.5)
    assert temperature(drifting) == pytest.approx(temperature(start))
    seconds, steps = integrate(start, 10.0, lambda a: (0.0, np.zeros((9, 3))))
    assert steps == 20 and seconds > 0


def test_the_command_writes_what_analyze_reads(weights, tmp_path):
    source = shaking("CH3CH2OH", frames=200, segments=1, spacing=1.0)
    arrays = {"coords": source.x, "velocities": source.v, "nuclear_charges": source.numbers, "spacing_fs": 1.0}
    np.savez(tmp_path / "ethanol.npz", **arrays)
    words = ["decode", tmp_path / "ethanol.npz", "--index", 40, "--model", weights, "--frames", 4, "--horizon", "0.1ps"]
    said = omnicalc(*words, "--reference", tmp_path / "ethanol.npz", "--out", tmp_path / "out")
    assert "aligned mean structure" in said and "temperature" in said
    trajectory = open_trajectory(tmp_path / "out" / "traj.dcd")
    frames = [np.array(f.positions) for f in trajectory.frames(trajectory.select())]
    assert len(frames) == 5 and trajectory.n_atoms == 9 and trajectory.dt_ps == pytest.approx(0.025)
    assert np.abs(frames[0] - source.x[40]).max() < 1e-5
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    errors = report["errors"]["rmse_A"]
    assert report["errors"]["start_frame"] == 40
    wanted = np.sqrt(np.mean((frames[4] - source.x[140]) ** 2))
    assert errors["decoder"][3] == pytest.approx(wanted, rel=1e-3)
    wanted = np.sqrt(np.mean((source.x[40] - source.x[140]) ** 2))
    assert errors["start frame"][3] == pytest.approx(wanted, rel=1e-3)
    last = read(tmp_path / "out" / "frames.extxyz", index=-1)
    assert last.info["time_fs"] == 100.0 and np.abs(last.get_velocities()).max() > 0
    again = omnicalc(
        "decode", tmp_path / "out" / "frames.extxyz", "--index", 1, "--model", weights, "--frames", 2,
        "--horizon", "50fs", "--reference", tmp_path / "out" / "traj.dcd", "--out", tmp_path / "again",
    )  # fmt: skip
    assert "root mean square error" in again
    second = json.loads((tmp_path / "again" / "report.json").read_text())
    assert second["errors"]["start_frame"] == 1
    assert second["errors"]["rmse_A"]["start frame"][1] == pytest.approx(
        np.sqrt(np.mean((frames[3] - frames[1]) ** 2)), rel=1e-3
    )
    with pytest.raises(InputError, match="positions alone"):
        read_start(tmp_path / "out" / "traj.dcd")
    with pytest.raises(InputError, match="decoded frames already"):
        omnicalc(*words, "--out", tmp_path / "out")
    with pytest.raises(InputError, match="fewer than 500 fs"):
        omnicalc(*words[:-1], "500fs", "--reference", tmp_path / "ethanol.npz", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    np.savez(tmp_path / "other.npz", **{**arrays, "coords": source.x + 1.0})
    with pytest.raises(InputError, match="no frame is the start"):
        omnicalc(*words, "--reference", tmp_path / "other.npz", "--out", tmp_path / "new")


def test_references_with_gaps_or_other_atoms_are_refused(weights, tmp_path):
    def written(name: str, frames: list) -> str:
        write(tmp_path / name, frames, format="extxyz")
        return str(tmp_path / name)

    start, frames = moving(), []
    for k in (0, 1, 2, 3, 7, 8, 9):
        frame = Atoms(start.numbers, start.positions + 0.001 * k, info={"time_fs": 10.0 * k})
        frames.append(frame)
    words = ["decode", written("start.xyz", [start]), "--model", weights, "--horizon", "20fs", "--frames", 2, "--out"]
    words.append(tmp_path / "out")
    with pytest.raises(InputError, match="frames 3 and 4 lie 40 fs apart"):
        omnicalc(*words, "--reference", written("gap.xyz", frames))
    with pytest.raises(InputError, match="atoms change at frame 2"):
        omnicalc(*words, "--reference", written("swap.xyz", [*frames[:2], frames[2][::-1]]))
    with pytest.raises(InputError, match="its atoms are not those"):
        omnicalc(*words, "--reference", written("mirror.xyz", [f[::-1] for f in frames[:4]]))
    with pytest.raises(InputError, match="10 fs apart by time_fs, but 3 fs was given; leave it out"):
        omnicalc(*words, "--reference", written("timed.xyz", frames[:4]), "--spacing", "3fs")
    with pytest.raises(InputError, match="frame spacing; give it"):
        omnicalc(*words, "--reference", written("spaceless.xyz", [Atoms(f.numbers, f.positions) for f in frames]))
    with pytest.raises(InputError, match="10 fs apart, and none is at 15 fs"):
        shorter = [*words[:4], "--horizon", "15fs", "--frames", 1, *words[-2:]]
        omnicalc(*shorter, "--reference", written("good.xyz", frames[:4]))
    timeless = [Atoms(start.numbers, start.positions + 0.01 * k) for k in (*range(20), *range(60, 80))]
    with pytest.raises(InputError, match="leaps 0.41 Å between frames 19 and 20"):
        omnicalc(*words, "--reference", written("leap.xyz", timeless), "--spacing", "1fs")
    said = omnicalc(*words, "--reference", written("good.xyz", frames[:4]))
    assert "no mean structure" in said


def test_errors_stay_in_the_segment_of_the_start_and_at_the_times_asked(tmp_path):
    source = shaking("CH3CH2OH", frames=60, segments=2, spacing=1.0)
    x = source.x.reshape(2, 60, 9, 3)
    x[1] += [0.0, 3.0, 0.0]
    np.savez(tmp_path / "two.npz", coords=x, nuclear_charges=source.numbers, spacing_fs=1.0)
    start = read_start(tmp_path / "two.npz", 40)
    later = [Atoms(source.numbers, x[0, 40] + 0.3 * (x[0, 41] - x[0, 40]), info={"time_fs": 0.3})]
    found = errors_against(tmp_path / "two.npz", None, start, later)["rmse_A"]
    on_a_frame = np.sqrt(np.mean((later[0].positions - x[0, 40]) ** 2))
    assert found["decoder"][0] < 0.1 * on_a_frame
    later[0].info["time_fs"] = 30.0
    with pytest.raises(InputError, match="19 frames of 1 fs follow the start in its segment"):
        errors_against(tmp_path / "two.npz", None, start, later)


def test_one_atom_has_no_closest_pair(decoder):
    atom = Atoms("H", velocities=[[0.01 / fs, 0, 0]])
    found = physics(atom, decoder.decode(atom, frames=1))
    assert found["frames"][0]["closest_pair_A"] is None
    report = {"model": "m", "frames": 1, "horizon_fs": 500.0, "seconds": 1.0, "physics": found}
    assert "m: 1 frame over 500 fs" in as_text(report)


def test_the_next_command_can_be_typed(weights, tmp_path):
    write(tmp_path / "start.xyz", moving("CH3OH"), format="extxyz")
    said = omnicalc("decode", tmp_path / "start.xyz", "--model", weights, "--frames", 1, "--out", tmp_path / "a b")
    assert f"analyze geometry '{tmp_path / 'a b' / 'traj.dcd'}'" in said


def test_energies_and_time_by_a_potential(weights, tmp_path):
    pytest.importorskip("tblite", exc_type=ImportError)
    write(tmp_path / "start.xyz", moving("CH3OH"), format="extxyz")
    words = ["decode", tmp_path / "start.xyz", "--model", weights, "--horizon", "5fs", "--frames", 1]
    said = omnicalc(*words, "--potential", "gfn2-xtb", "--out", tmp_path / "out")
    assert "energy eV" in said and "integrating the same 5 fs with gfn2-xtb in 10 steps" in said

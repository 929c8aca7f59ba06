"""Training of a decoder: recipe, samples, and runs that go on where they were killed."""

import json
import os
import shlex
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from omnicalc.card import DECODER_CARD
from omnicalc.decoding.card import read_decoder_card
from omnicalc.decoding.evaluation import HORIZONS, horizons_up_to
from omnicalc.decoding.targets import fixed_batch
from omnicalc.decoding.weights import load_decoder
from omnicalc.errors import InputError, RunError
from omnicalc.models.atom.physical import first_guess
from omnicalc.toml_writer import to_toml
from omnicalc.training.decoder.batches import Sampler, random_rotations
from omnicalc.training.decoder.export import export
from omnicalc.training.decoder.recipe import (
    DecoderRecipe,
    as_table,
    decoder_recipe,
    find_decoder_recipe,
    learning_rate,
    read_decoder_recipe,
    shipped,
)
from omnicalc.training.decoder.trainer import STATE, DecoderTrainer, weighted_error
from omnicalc.training.recipe import find_recipe, read_recipe
from tests.command import omnicalc
from tests.tiny_decoder import TINY, shaking, tiny_network

RECIPE = DecoderRecipe(
    name="atom",
    tag="tiny",
    version="1.0",
    summary="for tests",
    licence="MIT",
    citation=("nobody",),
    data_command="none",
    level_of_theory="none",
    molecules=("H2O", "CH3OH"),
    validation=("NH3",),
    test=("CH4",),
    model={k: v for k, v in TINY.to_dict().items() if k != "horizon"},
    steps=6,
    batch=4,
    frames=2,
    longest=100.0,
    validate_every=3,
    save_every=2,
)


def trainer(out, recipe=RECIPE) -> DecoderTrainer:
    train = [shaking(name) for name in recipe.molecules]
    return DecoderTrainer(recipe, train, [shaking("NH3")], out, report=lambda text: None)


def trained(out, recipe=RECIPE, resume=False, steps=None) -> DecoderTrainer:
    found = trainer(out, recipe)
    found.prepare(resume)
    found.run(steps)
    return found


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, optimiser):
    recipe = replace(RECIPE, optimiser=optimiser)
    whole = trained(tmp_path / "whole", recipe)
    trained(tmp_path / "parts", recipe, steps=4)
    torch.manual_seed(99)  # the global generator must not matter
    parts = trained(tmp_path / "parts", recipe, resume=True)
    assert same(whole.averaged, parts.averaged)
    assert (tmp_path / "whole" / "log.csv").read_bytes() == (tmp_path / "parts" / "log.csv").read_bytes()
    other = trained(tmp_path / "other", replace(recipe, seed=1))
    assert not same(whole.averaged, other.averaged)


def test_a_signal_stops_and_saves(tmp_path):
    run = trainer(tmp_path / "run", replace(RECIPE, steps=1000))
    run.prepare(resume=False)
    advance = run._advance

    def kill_after_two():
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance()

    run._advance = kill_after_two
    assert run.run() == signal.SIGTERM and run.step == 3
    again = trainer(tmp_path / "run", replace(RECIPE, steps=1000))
    again.prepare(resume=True)
    assert again.step == 3 and same(again.averaged, run.averaged)


def test_training_lowers_the_error(tmp_path):
    recipe = replace(RECIPE, steps=40, learning_rate=1e-2, warmup=5, batch=8)
    run = trainer(tmp_path / "run", recipe)
    batch = run.sampler.draw(torch.Generator().manual_seed(5))
    before = weighted_error(run.model, batch, "s2t").item()
    run.prepare(resume=False)
    run.run()
    assert weighted_error(run.model, batch, "s2t").item() < 0.9 * before


def test_objectives_and_padding(tmp_path):
    sampler = Sampler([shaking("H2O"), shaking("CH3OH")], replace(RECIPE, batch=16))
    batch = sampler.draw(torch.Generator().manual_seed(0))
    network = tiny_network()
    assert batch.start.numbers.min() == 0  # water is padded
    everything, last = (weighted_error(network, batch, o).item() for o in ("s2t", "s2s"))
    assert everything != pytest.approx(last)
    with torch.no_grad():
        squares = (network(batch.start, batch.times) - batch.wanted).square()
    weights = batch.start.mask[:, None, :, None] / (0.006 + 0.0004 * batch.times)[..., None, None]
    mean = (squares * weights).sum() / (3 * batch.start.mask.sum() * 2)
    assert everything == pytest.approx(mean.item(), rel=1e-4)


def test_samples_are_the_trajectory(tmp_path):
    """Forwards and backwards, without rotation: targets lie on the course whose velocity the start has."""
    source = shaking("CH3OH")
    sampler = Sampler([source], replace(RECIPE, random_rotations=False, batch=64, frames=3))
    batch = sampler.draw(torch.Generator().manual_seed(0))
    forwards = 0
    for k in range(64):
        x, v, times = batch.start.x[k].numpy(), batch.start.v[k].numpy(), batch.times[k].numpy()
        frame = int(np.abs(source.x - x).max((1, 2)).argmin())
        sign = 1 if np.array_equal(source.v[frame], v) else -1
        assert np.array_equal(source.v[frame], sign * v)
        forwards += sign == 1
        later = frame + sign * (times / source.spacing_fs).round().astype(int)
        assert np.array_equal(source.x[later], batch.wanted[k].numpy())
        assert times.max() <= 100 and max(frame, *later) < 0.75 * len(source.x)
    assert 16 < forwards < 48


def test_rotations_are_proper_and_everywhere():
    turn = random_rotations(2000, torch.Generator().manual_seed(0)).double()
    assert (turn @ turn.transpose(1, 2) - torch.eye(3)).abs().max() < 1e-5
    assert (torch.linalg.det(turn) - 1).abs().max() < 1e-5
    assert turn.mean(0).abs().max() < 0.05 and (turn[:, 0, 0].square().mean() - 1 / 3).abs() < 0.03


def test_fixed_batches_round_to_frames():
    source = shaking("H2O")
    batch = fixed_batch(source, np.array([3, 7]), [10.0, 49.1])
    assert batch.times.tolist() == [[10.0, 50.0]] * 2  # 2 fs between frames
    assert np.array_equal(batch.wanted[1, 1].numpy(), source.x[32])


def test_export_loads_again_with_its_errors(tmp_path):
    run = trained(tmp_path / "run")
    card = export(run, [shaking("CH4")], tmp_path / "run" / "weights")
    assert card.accuracy["molecules"] == ["CH4"] and card.accuracy["horizons_fs"] == [50.0, 100.0]
    network, again, _ = load_decoder(tmp_path / "run" / "weights")
    assert again == read_decoder_card(tmp_path / "run" / "weights" / DECODER_CARD) == card
    assert json.loads(card.training["recipe"])["steps"] == 6
    batch = fixed_batch(shaking("CH4"), np.array([0]), [50.0])
    wanted = run.averaged_model()(batch.start, batch.times)
    assert torch.equal(network(batch.start, batch.times), wanted)
    assert not torch.equal(wanted, first_guess(batch.start, batch.times).frames)


def test_errors_stand_at_the_horizons_trained_for(tmp_path):
    run = trained(tmp_path / "run", replace(RECIPE, longest=40.0))
    assert run.validation[0].times[0].tolist() == [40.0]
    assert (tmp_path / "run" / "log.csv").read_text().startswith("step,learning_rate,loss,mse_40fs\n")
    card = export(run, [shaking("CH4")], tmp_path / "run" / "weights")
    assert card.accuracy["horizons_fs"] == [40.0] and card.error_growth().endswith(" Å at 40 fs")
    assert horizons_up_to(500.0) == HORIZONS


def test_a_molecule_trained_on_is_validated_on_its_later_frames(tmp_path):
    later = shaking("NH3", frames=400)
    run = DecoderTrainer(replace(RECIPE, molecules=("NH3",)), [later], [later], tmp_path / "run", report=print)
    starts = run.validation[0].start.x
    places = [int((torch.from_numpy(later.x) - x).abs().amax((1, 2)).argmin()) for x in starts]
    assert min(places) >= 600 and max(places) + 50 < 800
    with pytest.raises(InputError, match="to validate on in the part 1 to 1"):
        whole = replace(RECIPE, molecules=("NH3",), train_part=1.0)
        DecoderTrainer(whole, [later], [later], tmp_path / "run", report=print)


def test_other_trajectories_are_not_gone_on_with(tmp_path):
    trained(tmp_path / "run", steps=2)
    train = [replace(t, x=t.x + 0.01) for t in map(shaking, RECIPE.molecules)]
    other = DecoderTrainer(RECIPE, train, [shaking("NH3")], tmp_path / "run", report=print)
    with pytest.raises(InputError, match="the trajectories differ from those that the run in .* began with"):
        other.prepare(resume=True)
    trainer(tmp_path / "run").prepare(resume=True)


def test_the_card_says_what_was_typed(tmp_path):
    for name in ("H2O", "NH3"):
        t = shaking(name)
        x, v = (a.reshape(2, 120, -1, 3) for a in (t.x, t.v))
        np.savez(tmp_path / f"{name}.npz", coords=x, velocities=v, nuclear_charges=t.numbers, spacing_fs=2.0)
    made = {**as_table(RECIPE), "molecules": ["H2O"], "test": [], "steps": 1}
    (tmp_path / "mine.toml").write_text('family = "atom"\n' + to_toml(made))
    words = ["decoder", "train", tmp_path / "mine.toml", "--data", tmp_path, "--out", tmp_path / "run"]
    omnicalc(*words, "--seed", 3, "--threads", 1)
    card = read_decoder_card(tmp_path / "run" / "weights" / DECODER_CARD)
    assert card.training["command"] == shlex.join(map(str, ["omnicalc", *words, "--seed", 3]))


def test_evaluation_says_what_was_trained_on(tmp_path):
    run = trained(tmp_path / "run")
    export(run, [], tmp_path / "run" / "weights")
    for name in ("H2O", "CH4"):
        t = shaking(name, frames=600)
        x, v = (a.reshape(2, 600, -1, 3) for a in (t.x, t.v))
        np.savez(tmp_path / f"{name}.npz", coords=x, velocities=v, nuclear_charges=t.numbers, spacing_fs=2.0)
    words = ["decoder", "evaluate", tmp_path / "run" / "weights", "--data", tmp_path, "--starts", 2, "--from"]
    said = omnicalc(*words, 0.5)
    assert "was trained on the first 75% of H2O (see --from)" in said and "trained up to 100 fs" in said
    assert "was trained on" not in omnicalc(*words, 0.75)
    with pytest.raises(InputError, match="stand twice"):
        omnicalc(*words[:3], tmp_path / "run" / "weights", *words[3:], 0.5)


def test_schedule():
    rates = [learning_rate(replace(RECIPE, steps=1000, warmup=10), k) for k in (0, 9, 500, 999)]
    assert rates[0] == pytest.approx(2e-4, rel=0.01) and rates[1] == pytest.approx(2e-3, rel=0.01)
    assert rates[2] == pytest.approx(1.01e-3, rel=0.01) and rates[3] == pytest.approx(2e-5, rel=0.02)


def test_the_trainer_of_potentials_names_the_command():
    with pytest.raises(InputError, match="omnicalc decoder train"):
        read_recipe(find_recipe("atom-small"))


def test_shipped_recipes_are_of_our_molecules():
    from omnicalc.data.tg_mini import molecules

    split = {a.info["name"]: a.info["split"] for a in molecules()}
    for name in shipped():
        recipe = read_decoder_recipe(find_decoder_recipe(name))
        for names, part in ((recipe.molecules, "train"), (recipe.validation, "valid"), (recipe.test, "test")):
            assert {split[n] for n in names} == {part}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimiser": "sgd"}, "one of muon, adamw"),
        ({"stepps": 3}, "unknown keys in recipe .here.: stepps"),
        ({"validation": ()}, r"validation = \(\) .* at least one molecule"),
        ({"steps": 0}, "steps = 0 .* at least 1"),
        ({"steps": "many"}, "steps = 'many'"),
        ({"time_reversal": 1}, "time_reversal = 1"),
        ({"shortest": 900.0}, "at most longest"),
        ({"warmup": 0}, "warmup = 0 .* at least 1"),
        ({"molecules": "H2O"}, "molecules = 'H2O' .* a list, each text"),
        ({"summary": 3}, "summary = 3 .* text is needed"),
        ({"learning_rate": float("inf")}, "learning_rate = inf"),
        ({"save_every": 0}, "save_every = 0"),
        ({"train_part": 0.0}, "train_part = 0.0"),
        ({"version": "1 0"}, "version = '1 0'"),
        ({"test": ("H2O",)}, "H2O is in test, and in molecules"),
    ],
)
def test_recipes_that_make_no_run(change, message):
    table = {k: v for k, v in vars(RECIPE).items() if k != "model"}
    with pytest.raises(InputError, match=message):
        decoder_recipe({**table, **change}, "here")


def test_folders_that_cannot_be_used(tmp_path):
    trained(tmp_path / "run")
    with pytest.raises(InputError, match="--resume"):
        trained(tmp_path / "run")
    with pytest.raises(InputError, match="recipe differs"):
        trained(tmp_path / "run", replace(RECIPE, batch=5), resume=True)
    with pytest.raises(InputError, match="no training run"):
        trained(tmp_path / "nothing", resume=True)
    (tmp_path / "run" / STATE).write_bytes(b"damaged")
    with pytest.raises(RunError, match="is damaged"):
        trained(tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="no window"):
        Sampler([shaking("H2O")], replace(RECIPE, longest=1e4))
    (tmp_path / "potential.toml").write_text('family = "e2former"\n')
    with pytest.raises(InputError, match="family"):
        read_decoder_recipe(tmp_path / "potential.toml")
    with pytest.raises(InputError, match="atom-small"):
        read_decoder_recipe(find_decoder_recipe("atom-huge"))

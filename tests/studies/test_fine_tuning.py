"""The frames that fine-tuning is measured on."""

from ase.build import molecule

from analysis.fine_tuning.ethanol import TESTED, TUNED, choose


def test_ethanol_alone_and_no_frame_twice():
    frames = []
    for k in range(400):
        atoms = molecule("CH3CH2OH" if k % 8 else "CH3OH")
        atoms.info = {"split": "train"}
        atoms.positions[0, 0] = 10.0 + k
        frames.append(atoms)
    tuned, tested = choose(frames)
    assert (len(tuned), len(tested)) == (TUNED, TESTED)
    assert {a.get_chemical_formula() for a in tuned + tested} == {"C2H6O"} and not any(a.info for a in tuned + tested)
    assert len({a.positions[0, 0] for a in tuned + tested}) == TUNED + TESTED

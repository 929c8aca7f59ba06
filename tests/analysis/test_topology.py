import pytest

from omnicalc.analysis.topology import element_of, read_elements


@pytest.mark.parametrize(
    ("given", "name", "residue", "mass", "element"),
    [
        ("O", "OW", "SOL", 0.0, "O"),
        ("NA", "NA", "NA", 0.0, "Na"),
        ("", "OW", "SOL", 0.0, "O"),
        ("", "HW1", "SOL", 0.0, "H"),
        ("", "1HB", "ALA", 0.0, "H"),
        ("", "CA", "ALA", 0.0, "C"),
        ("", "CA", "CA", 0.0, "Ca"),
        ("", "NA+", "Na+", 0.0, "Na"),
        ("", "CL", "ION", 0.0, "Cl"),
        ("", "SOD", "SOD", 0.0, "Na"),
        ("", "CLA", "CLA", 35.45, "Cl"),
        ("", "CAL", "CAL", 40.08, "Ca"),
        ("", "", "", 15.999, "O"),
        ("", "OH2", "TIP3", 15.9994, "O"),
        ("", "OW", "HOH", 12.011, "O"),  # hydrogen mass repartitioned: not carbon
        ("", "MW", "SOL", 0.0, "X"),
        ("", "EPW", "WAT", 0.0, "X"),
        ("", "MG", "MG", 24.305, "Mg"),
        ("", "CL2", "LIG", 0.0, "Cl"),
    ],
)
def test_element_of_an_atom(given, name, residue, mass, element):
    assert element_of(given, name, residue, mass) == element


def test_gro_names_give_elements(tmp_path):
    path = tmp_path / "box.gro"
    lines = ["water and salt", "    5"]
    atoms = [("SOL", "OW"), ("SOL", "HW1"), ("SOL", "HW2"), ("NA", "NA"), ("CL", "CL")]
    for k, (residue, name) in enumerate(atoms, start=1):
        lines.append(f"{k:5d}{residue:<5s}{name:>5s}{k:5d}{k / 10:8.3f}{0.1:8.3f}{0.1:8.3f}")
    path.write_text("\n".join([*lines, "   2.0   2.0   2.0", ""]))
    assert list(read_elements(path)) == ["O", "H", "H", "Na", "Cl"]

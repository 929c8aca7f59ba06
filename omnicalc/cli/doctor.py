"""``omnicalc doctor``: what is installed, on what machine, and whether it works."""

import time

import click

_WIDTH = 20


@click.command(name="doctor")
@click.option("--device", default="auto", show_default=True, help="Where the self-test computes: auto, cpu or cuda.")
@click.pass_context
def command(context, device):
    """Look at packages, device, kernel and weights, and test the default weights on eight waters.

    Takes some seconds and writes nothing. The exit code is 2 if something has to be mended, else 0.
    """
    from omnicalc.doctor import sections

    start, problems = time.perf_counter(), []
    for title, findings in sections(device):
        click.echo(f"{title}:")
        for found in findings:
            mark = "!" if found.problem else " "
            click.echo(f"{mark} {found.name:<{_WIDTH}} {found.text}")
            if found.advice:
                click.echo(f"  {'':<{_WIDTH}} -> {found.advice}")
            if found.problem:
                problems.append(found.name)
    took = f"({time.perf_counter() - start:.1f} s)"
    if problems:
        click.echo(f"to mend: {', '.join(problems)} {took}")
        context.exit(2)
    click.echo(f"all is well {took}")

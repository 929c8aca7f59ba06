"""``omnicalc models fetch``: published weights by name from their public hub."""

import click

from omnicalc.cli.models_import import SMOOTH, ZERO


@click.command(name="fetch")
@click.argument("name", metavar="NAME:TAG")
@SMOOTH
@ZERO
@click.option("--revision", help="Commit, tag or branch of the repository. [default: the pinned one, or the newest]")
@click.option("--repository", metavar="OWNER/NAME", help="Another repository of the Hugging Face hub.")
@click.option("--file", help="Another checkpoint file of the repository.")
@click.option("--config", help="Another config file of the repository. [default: config.yaml, where one is needed]")
def command(name, smooth, zero_references, **places):
    """Fetch published weights NAME:TAG (`omnicalc models` lists them), such as ubio-s3:24m, and import them."""
    from omnicalc.model_text import imported
    from omnicalc.published.hub import fetch, known

    wanted = known(name, **places)

    from omnicalc.published.import_file import import_file
    from omnicalc.published.install import Source, free_name

    free_name(name, smooth)  # before anything is fetched
    file, config, revision = fetch(wanted, click.echo)
    source = Source.of(wanted, revision)
    done = import_file(file, config, name, smooth=smooth, zero_references=zero_references, source=source)
    click.echo(imported(done))

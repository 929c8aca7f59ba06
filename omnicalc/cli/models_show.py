"""``omnicalc models [NAME]``: the weights there are, the card of one, and whether the files are whole."""

import click


@click.command(name="show")
@click.argument("name", required=False)
@click.option("--verify", is_flag=True, help="Compare the sha256 of the weights with their cards.")
def command(name, verify):
    """List the models, or show the card of NAME (name, name:tag, name:tag@version, or a weights folder)."""
    from omnicalc import model_text

    if verify:
        for line in model_text.verified(name):
            click.echo(line)
        return
    click.echo(model_text.model_list() if name is None else model_text.model_card(name))

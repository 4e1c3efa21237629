"""``fxeval convert``: writes a checkpoint as safetensors, and prints a card for it."""

import json
import re
from pathlib import Path

import click

from fxeval.errors import FxevalError
from fxeval.strict.text import brief

_STUB = """\
card: 1
name: {name}
weights: {weights}
sha256: {sha256}
{architecture}
operating_threshold: null
licence: ""
source: ""
trained_on: ""
"""
_OWN = """\
architecture: module:factory  # a torch.nn.Module, or a key of fxeval.models.ARCHITECTURES
crop: arcface112
colour: RGB
mean: 127.5
std: 127.5
similarity: cosine"""


def _yaml(text: str) -> str:
    """Quote text where YAML would read it as something else."""
    return text if re.fullmatch(r"[A-Za-z][\w.-]*", text) else json.dumps(text, ensure_ascii=False)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--key", help="Entry of the checkpoint with the state dict, e.g. state_dict.")
@click.option("--prefix", default="", help="Take only keys that start with this, e.g. model.")
@click.option("--force", is_flag=True, help="Replace the target.")
def convert(source: Path, target: Path, key: str | None, prefix: str, force: bool) -> None:
    """Write a checkpoint (.pt, .pth, .ckpt) as .safetensors.

    The checkpoint is read in a separate process with bounded memory and time, by PyTorch's
    restricted unpickler: a file that tries to run code is refused.
    """
    if target.suffix != ".safetensors":
        raise click.ClickException(f"{target}: expected a name that ends in .safetensors.")
    if target.exists() and not force:
        raise click.ClickException(f"{target} exists already. Replace it with --force.")
    if not target.parent.is_dir():
        raise click.ClickException(f"{target.parent}: no such folder. Make it first.")
    from fxeval.models.files.conversion import convert as convert_file

    try:
        done = convert_file(source, target, key=key, prefix=prefix)
    except FxevalError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{done.n_tensors} tensors, {done.n_values} values -> {target}")
    if done.stored:
        click.echo(f"They are stored in {done.stored} and were written in float32.")
    if done.front and not done.fits:
        click.echo(
            f"All names begin with '{brief(done.front)}'. If the network's names do not, leave it "
            f"out: --prefix {brief(prefix + done.front)}"
        )
    click.echo(f"sha256 {done.sha256}")
    architecture = f"architecture: {done.fits[0]}" if len(done.fits) == 1 else _OWN
    if len(done.fits) > 1:
        click.echo(f"It fits {', '.join(done.fits)}: name one of them as the architecture.")
    click.echo("\nA card for it:\n")
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in target.stem)
    click.echo(
        _STUB.format(
            name=name if name[:1].isalpha() else f"model_{name}",
            weights=_yaml(target.name),
            sha256=done.sha256,
            architecture=architecture,
        )
    )

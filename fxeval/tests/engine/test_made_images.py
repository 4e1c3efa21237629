"""Images that are made of others: named by what was done, and in no gallery."""

import torch

from fxeval.contracts import ExplainerTraits, Faces
from fxeval.engine.forward_pool import ForwardPool, PooledModel
from fxeval.engine.inputs import Comparison, Inputs
from fxeval.engine.made_images import originals, with_made
from fxeval.tests.subjects import ConvNet, CountingModel, make_pairs


class Enrols:
    """Asks for a gallery and a nonmate."""

    traits = ExplainerTraits(needs=frozenset({"contrast", "gallery"}))

    def explain(self, model, probes, references, **given):
        raise AssertionError("nobody asks")


def made(faces: Faces, recipe: str = "a hole"):
    base = torch.tensor([1, 0])
    altered = torch.zeros(2, *faces.images.shape[-2:], dtype=torch.bool)
    altered[:, 2:5, 3:6] = True
    return with_made(faces, base, torch.full_like(faces.images[base], 7), altered, [recipe] * 2)


def test_a_made_image_differs_where_it_was_altered_alone():
    faces = make_pairs().faces()
    found, numbers = made(faces)
    image, original = found.images[numbers[0]], faces.images[1]
    differs = (image != original).any(0)
    assert differs[2:5, 3:6].all()
    assert int(differs.sum()) == 9
    assert (image[:, 2:5, 3:6] == 7).all()
    assert originals(found, numbers).tolist() == [1, 0]
    assert found.people()[numbers].tolist() == faces.identity[torch.tensor([1, 0])].tolist()


def test_its_name_is_that_of_the_recipe_and_its_original():
    faces = make_pairs().faces()
    one, two, other = (made(faces, recipe)[0].image_digests for recipe in ("a", "a", "b"))
    assert one == two
    assert one[-1] != other[-1]
    assert len({*one}) == len(one)


def test_no_made_image_is_enrolled_or_drawn_as_a_nonmate():
    faces = make_pairs().faces()
    found, numbers = made(faces)

    pool = ForwardPool()
    model = PooledModel(CountingModel(ConvNet().eval()), pool, "key")
    rivals = torch.tensor([2, 3])
    given = Inputs(Enrols(), model, Comparison(found, ("x", "y"), numbers, rivals), 0).extra(
        torch.arange(2)
    )
    gallery = given["gallery"]
    assert len(gallery.embeddings) == len(gallery.identity) == len(faces.images)
    assert gallery.identity.tolist() == faces.identity.tolist()
    assert gallery.probe_identity.tolist() == faces.identity[torch.tensor([1, 0])].tolist()
    made_images = found.images[numbers].float() / 255
    assert not any(torch.equal(one, other) for one in given["contrast"] for other in made_images)

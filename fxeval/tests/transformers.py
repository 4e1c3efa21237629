"""Small transformers and relatives, whose layers give tokens, channels last, and attention."""

import torch
from torch import Tensor, nn

from fxeval.contracts import Crop
from fxeval.tests.cam_subjects import FaceNet

SIDE = 24
CROP = Crop("transformer24", (SIDE, SIDE), ())


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            fan = 4 if parameter.dim() == 1 else max(1, parameter[:1].numel()) / 2
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
    return net.eval()


def face_net(net: nn.Module) -> FaceNet:
    return FaceNet(net, crop=CROP)


def faces(n: int, seed: int, side: int = SIDE) -> Tensor:
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(seed))


class Attention(nn.Module):
    """Every matrix on the way is a module's output: scores, and the weights made of them."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scores, self.weights = nn.Identity(), nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = self.scores(q @ k.transpose(2, 3) * (d // self.heads) ** -0.5)
        return self.proj((self.weights(scores) @ v).transpose(1, 2).reshape(n, t, d))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """6 x 6 patches of 24 x 24 pixels behind class and register tokens; ``keep`` drops the rest."""

    def __init__(self, in_front: int = 1, width: int = 8, keep: int | None = None) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.front = nn.Parameter(torch.zeros(1, in_front, width))
        self.place = nn.Parameter(torch.zeros(1, in_front + 36, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 16)
        self.keep, self.in_front = keep, in_front

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.before(images))

    def before(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.front.expand(len(x), -1, -1), x], dim=1) + self.place
        return self.blocks[:-1](x[:, : self.keep])

    def after(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """Go on from the last block, with the output of its first norm in place of its own."""
        last = self.blocks[-1]
        x = last(x) if normed is None else x + last.attn(normed)
        x = x if normed is None else x + last.mlp(last.norm2(x))
        x = self.norm(x)
        return self.head(x[:, 0] if self.in_front else x.mean(dim=1))


class PlacesFirst(nn.Module):
    """Tokens as (T, N, D), as ``nn.TransformerEncoder`` has them unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.patch(images).flatten(2).permute(2, 0, 1)).mean(dim=0))


class Windowed(nn.Module):
    """(N, 6, 6, C) throughout, mixed within windows of 3 x 3 that count as images."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        self.window, self.mix = nn.Identity(), nn.Linear(9, 9)
        self.rows = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.before(images))

    def before(self, images: Tensor) -> Tensor:
        x = self.patch(images).permute(0, 2, 3, 1)
        n, _, _, c = x.shape
        y = self.norm(x).reshape(n, 2, 3, 2, 3, c).permute(0, 1, 3, 5, 2, 4).reshape(-1, c, 3, 3)
        y = self.mix(self.window(y).flatten(2)).reshape(n, 2, 2, c, 3, 3)
        x = x + y.permute(0, 1, 4, 2, 5, 3).reshape(x.shape)
        return x + self.rows(x)

    def after(self, x: Tensor) -> Tensor:
        return self.head(self.last(x).tanh().mean(dim=(1, 2)))


class Square(nn.Module):
    """A convolutional network whose channels are as many as its rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(12, 16)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean(dim=(2, 3)))

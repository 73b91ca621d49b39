"""
Future camera frames at low resolution, from rolled-out states and the newest pictures.

The reverse of the lift: each pixel's ray is followed into the scene as it will be, a small network
says from the bird's-eye maps along it how far away what it meets is, and the newest pictures are
looked up where that lies now (what moves, by the forecast's flow). Where nothing can be looked up,
it paints. It begins as the best guess without a model: the newest picture, moved by the ego
vehicle's own motion over flat ground.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.frames import FAR_M, LENS
from wm_ros.model.config import ModelConfig
from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.contract import IMAGE_HEIGHT, IMAGE_WIDTH
from wm_ros.types import FEATURE_GRID, HORIZON_STEPS

#: Distances along a ray at which it looks into the scene; what is ground is nearer. A car is four
#: metres long: none may stand unseen between two of them.
RANGES_M = (FAR_M, 50.0, 36.0, 26.0, 19.0, 14.0, 10.0, 7.0, 5.0, 3.5)
#: Bird's-eye features that are sampled along rays.
EVIDENCE = 8
#: Half the side of the feature grid.
REACH_M = FEATURE_GRID.cell_m * FEATURE_GRID.rows / 2
NEAR_M = 0.1
#: Weight that forbids a guess.
NEVER = -30.0


def map_channels(config: ModelConfig) -> int:
    """Return the channels of the `scene_maps` of a model."""
    return config.decoder_channels + 4 * 3 + config.skip_channels


@torch.no_grad()
def scene_maps(model: WorldModel, latent: torch.Tensor, skip: torch.Tensor, plans: torch.Tensor,
               motion: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return what a frozen model says of the ground at each of the six steps.

    Maps (B, 6, C, R, R): the decoder's, its occupancy and flow, and the newest frame's features.
    Drift (B, 6, 2, 2R, 2R): where what will be in a cell lies now, relative to it, metres.
    """
    states = model.dynamics(latent, plans, motion, known)
    ahead = states[:, 1:]
    _, maps = model.decoder.steps(ahead, skip, slice(1, None))
    dense = model.decoder.occupancy(maps)
    fine = F.pixel_shuffle(dense, 2)                        # (B * 6, 3, 2R, 2R)
    dense, maps, fine = (t.unflatten(0, ahead.shape[:2]) for t in (dense, maps, fine))
    skips = skip[:, None].expand(-1, HORIZON_STEPS, -1, -1, -1)
    # Flow is learnt where somebody is; elsewhere the ground stays where it is.
    flow = fine[:, :, 1:] * (2.0 * torch.sigmoid(fine[:, :, :1])).clamp_max(1.0)
    return torch.cat([maps, dense, skips], 2), drift_of(flow)


def drift_of(flow: torch.Tensor) -> torch.Tensor:
    """Add up backward flow (B, 6, 2, S, S) of steps, metres, from each step to now."""
    size = flow.shape[-1]
    axis = torch.arange(size, dtype=flow.dtype, device=flow.device) + 0.5
    axis = axis * (2 * REACH_M / size) - REACH_M
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    drift = [flow[:, 0]]
    for step in range(1, flow.shape[1]):
        back = flow[:, step]
        there = torch.stack([x + back[:, 0], y + back[:, 1]], -1) / REACH_M
        drift.append(back + F.grid_sample(drift[-1], there, padding_mode='border',
                                          align_corners=False))
    return torch.stack(drift, 1)


class FrameDecoder(nn.Module):
    """
    One picture (80, 200, 3) a view; see `wm_ros.frames` for what comes with a view.

    Everything works view by view, so the same weights serve any number of cameras and steps.
    """

    def __init__(self, map_channels: int, width: int = 32):
        super().__init__()
        depths = len(RANGES_M)
        self.evidence = nn.Conv2d(map_channels, EVIDENCE, 1)
        # Along the ray: evidence, the colour there now, whether it is known. Then, of the pixel:
        # newest picture, moved picture, direction, planned motion, time, distance of the ground.
        self.enter = nn.Conv2d(depths * (EVIDENCE + 4) + 3 + 3 + 3 + 4 + 1, width, 1)
        self.fine = _conv(width, width)
        self.down = nn.Sequential(_conv(width, 48, 2), _conv(48, 48))
        self.deep = nn.Sequential(_conv(48, 64, 2), _conv(64, 64), _conv(64, 64))
        self.deep_up, self.down_up = nn.Conv2d(64, 48, 1), nn.Conv2d(48, width, 1)
        self.middle, self.out = _conv(48, 48), _conv(width, width)
        self.distance = nn.Conv2d(width, 4 * depths, 1)
        self.paint = nn.Conv2d(width, 4 * 3, 1)
        self.hints = nn.Conv2d(width, 4 * 4, 1)
        # Of the pixel: the newest, moved and looked up picture, what was painted, what is known.
        self.weigh = nn.Sequential(nn.Conv2d(4 + 4 * 3 + 2, 16, 3, padding=1), nn.ReLU(),
                                   nn.Conv2d(16, 4, 3, padding=1))
        with torch.no_grad():
            for layer in (self.distance, self.weigh[-1]):
                layer.weight.mul_(0.1)
            self.distance.bias[:4] = 4.0                    # first of all nothing but ground
            self.weigh[-1].bias.copy_(torch.tensor([0.0, 4.0, 4.0, -4.0]))

    def forward(self, maps: torch.Tensor, drift: torch.Tensor, pose: torch.Tensor,
                view: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return pictures (M, 80, 200, 3) of values 0-1, and the newest ones moved as they begin.

        `maps` (M, C, R, R) and `drift` (M, 2, S, S) are of each view's step, `pose` (M, 3) its
        planned x, y, yaw; `view` holds `step`, `rays`, `origin`, `lens` and `sources`.
        """
        picture, moved, _ = self.draw(maps, drift, pose, view)
        return picture.permute(0, 2, 3, 1), moved.permute(0, 2, 3, 1)

    def draw(self, maps: torch.Tensor, drift: torch.Tensor, pose: torch.Tensor,
             view: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Return what `forward` does, channels first, and beside it a sketch (M, 3, 40, 100).

        In the sketch the colours at all distances are mixed by how likely each is. A colour looked
        up at one distance only tells which way is a little better; the sketch tells which of all
        distances has the right one, and that is what distances are learnt by.
        """
        rays, origin = view['rays'].permute(0, 3, 1, 2), view['origin'][:, :, None, None]
        sources = view['sources'].permute(0, 1, 4, 2, 3).float() / 255.0    # (M, S, 3, H, W)
        ground = inverse_ground(rays, origin)               # 1/m, (M, 1, 80, 200)
        newest = F.avg_pool2d(sources[:, 0], 2)
        place = along(rays, origin, pose, ground)
        moved, moved_there = look_up(sources, view['lens'], place)
        moved = torch.where(moved_there, moved, newest)
        features, colours, there = self.features(maps, drift, pose, view, sources, newest, moved)
        # How far away what each pixel shows is: the mean of inverse distances, never under ground.
        share = torch.softmax(F.pixel_shuffle(self.distance(features), 2).float(), 1)
        likely = F.avg_pool2d(share, 2)[:, :, None]
        sketch = (likely * torch.where(there, colours, F.avg_pool2d(newest, 2)[:, None])).sum(1)
        inverse = torch.maximum(share.new_tensor([1 / r for r in RANGES_M])[:, None, None], ground)
        place = along(rays, origin, pose, (share * inverse).sum(1, keepdim=True))
        found, found_there = look_up(sources, view['lens'], before(place, drift))
        painted = torch.sigmoid(F.pixel_shuffle(self.paint(features), 2).float())
        known = torch.cat([moved_there, found_there], 1).to(newest.dtype)
        guesses = torch.stack([newest, moved, found, painted], 1)           # (M, 4, 3, 80, 200)
        weight = self.weigh(torch.cat([F.pixel_shuffle(self.hints(features), 2).float(),
                                       guesses.flatten(1, 2), known], 1)).float()
        always = torch.zeros_like(weight[:, :1])
        weight = torch.softmax(weight + torch.cat([always, NEVER * (1 - known), always], 1), 1)
        return (guesses * weight[:, :, None]).sum(1), moved, sketch

    def features(self, maps: torch.Tensor, drift: torch.Tensor, pose: torch.Tensor,
                 view: dict[str, torch.Tensor], sources: torch.Tensor, newest: torch.Tensor,
                 moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Return what is known along the rays of every second pixel: (M, width, 40, 100).

        Beside it the colours (M, D, 3, 40, 100) that lie there now, and which are known.
        """
        rays = F.avg_pool2d(view['rays'].permute(0, 3, 1, 2), 2)
        origin = view['origin'][:, :, None, None]
        ground = inverse_ground(rays, origin)
        # Distances lie one under the other, as rows of one tall picture.
        inverse = torch.cat([ground.clamp_min(1 / r) for r in RANGES_M], 2)
        place = along(rays.repeat(1, 1, len(RANGES_M), 1), origin, pose, inverse)
        # In single precision: with the 8 bits of bfloat16 a place is a third of a cell off.
        evidence = sample_ground(F.relu(self.evidence(maps)).float(), place)
        small = F.avg_pool2d(sources.flatten(0, 1), 4).unflatten(0, sources.shape[:2])
        colour, there = look_up(small, view['lens'], before(place, drift))
        looked = torch.cat([evidence, colour, there.to(evidence.dtype)], 1)
        looked = looked.unflatten(2, (len(RANGES_M), -1)).flatten(1, 2)
        rows, cols = rays.shape[2:]
        step = view['step'].to(pose.dtype)[:, None] / HORIZON_STEPS
        told = torch.cat([pose * pose.new_tensor([0.1, 0.1, 1.0]), step], 1)[:, :, None, None]
        x = torch.cat([looked, F.avg_pool2d(newest, 2), F.avg_pool2d(moved, 2), rays,
                       told.expand(-1, -1, rows, cols), 5.0 * ground], 1)
        fine = self.fine(F.relu(self.enter(x)))
        down = self.down(fine)
        deep = F.interpolate(self.deep_up(self.deep(down)), size=down.shape[2:], mode='nearest')
        middle = F.interpolate(self.down_up(self.middle(down + deep)), scale_factor=2.0,
                               mode='nearest')
        return self.out(fine + middle), *(t.unflatten(2, (len(RANGES_M), rows)).transpose(1, 2)
                                          for t in (colour, there))


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, stride, 1), nn.ReLU())


def inverse_ground(rays: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """Return 1 / distance at which rays (M, 3, h, w) meet flat ground, at least 1 / FAR_M."""
    return (-rays[:, 2:] / origin[:, 2:].clamp_min(NEAR_M)).clamp_min(1.0 / FAR_M)


def along(rays: torch.Tensor, origin: torch.Tensor, pose: torch.Tensor,
          inverse: torch.Tensor) -> torch.Tensor:
    """Return points (M, 3, h, w) in `base_link` now, on rays of the vehicle at a planned pose."""
    points = origin + rays / inverse
    c, s = torch.cos(pose[:, 2])[:, None, None], torch.sin(pose[:, 2])[:, None, None]
    x, y, z = points.unbind(1)
    return torch.stack([c * x - s * y + pose[:, 0, None, None],
                        s * x + c * y + pose[:, 1, None, None], z], 1)


def before(place: torch.Tensor, drift: torch.Tensor) -> torch.Tensor:
    """Return where what will be at `place` (M, 3, h, w) lies now."""
    back = sample_ground(drift, place)
    return torch.cat([place[:, :2] + back, place[:, 2:]], 1)


def sample_ground(maps: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Sample maps (M, C, R, R) of the ground under points (M, 3, h, w); 0 outside."""
    where = place[:, :2].permute(0, 2, 3, 1) / REACH_M
    return F.grid_sample(maps, where.to(maps.dtype), align_corners=False)


def look_up(sources: torch.Tensor, lens: torch.Tensor,
            place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the colours (M, 3, h, w) of points (M, 3, h, w), and whether a picture has them.

    `sources` (M, S, 3, H, W) are pictures at any scale, `lens` (M, S, LENS) their cameras; the
    first that shows a point is taken. Formulas of `wm_ros.geometry.project`.
    """
    colour, there = torch.zeros_like(place), torch.zeros_like(place[:, :1], dtype=torch.bool)
    for i in range(sources.shape[1]):
        where, inside = projected(lens[:, i], place)
        seen = F.grid_sample(sources[:, i], where.to(sources.dtype), padding_mode='border',
                             align_corners=False)
        colour = torch.where(there, colour, seen * inside)
        there = there | inside
    return colour, there


def projected(lens: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where in pictures, -1 to 1, points (M, 3, h, w) lie, and whether inside (M, 1, ..)."""
    number = [lens[:, i, None, None] for i in range(LENS)]
    camera = [sum(number[4 * row + i] * place[:, i] for i in range(3)) + number[4 * row + 3]
              for row in range(3)]
    fx, skew, cx, fy, cy = number[12:17]
    k1, k2, p1, p2, k3, k4, k5, k6 = number[17:25]
    limit, begin, end, available = number[25:]
    depth = camera[2]
    z = depth.clamp_min(NEAR_M)
    x, y = camera[0] / z, camera[1] / z
    r2 = x * x + y * y
    inside = (depth > NEAR_M) & (r2 < limit * limit) & (available > 0)
    r2 = r2.clamp_max(100.0)
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    u = fx * xd + skew * yd + cx + 0.5
    v = fy * yd + cy + 0.5
    inside = inside & (u > 0) & (u < IMAGE_WIDTH) & (v > begin) & (v < end)
    where = torch.stack([u * (2 / IMAGE_WIDTH) - 1, v * (2 / IMAGE_HEIGHT) - 1], -1)
    return where.clamp(-2.0, 2.0), inside[:, None]

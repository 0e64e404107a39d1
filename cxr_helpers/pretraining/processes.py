"""Batch norm over the images of several processes, on any device; with one it is torch's.

From cxr-helpers 0.2.0 (MIT license).
Needs: lightly, torch.
"""

import torch
from lightly.utils.dist import gather, world_size
from torch import Tensor, nn


class ProcessBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the images of all processes, on any device.

    torch's SyncBatchNorm does the same on a GPU only. In evaluation, or with one process, this is
    torch's batch norm.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim not in (2, 4):
            raise ValueError(f"expected (B, C) or (B, C, H, W), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W) to the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = [d for d in range(x.ndim) if d != 1]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        count = values.numel() / values.shape[1] * world_size()
        mean = _sum_over_processes(values.sum(dims)) / count  # (C,)
        centered = values - mean.view(shape)
        variance = _sum_over_processes(centered.pow(2).sum(dims)) / count  # (C,)
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def _sum_over_processes(x: Tensor) -> Tensor:
    return torch.stack(gather(x)).sum(dim=0)


def synchronize_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch norm of a module, in place, by one over the images of all processes.

    Args:
        module: its BatchNorm1d and BatchNorm2d have weights and running statistics.

    Returns:
        The same module; names and weights stay.

    >>> [type(m).__name__ for m in synchronize_batch_norm(nn.Sequential(nn.BatchNorm1d(2)))]
    ['ProcessBatchNorm']
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            synced = ProcessBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            synced.load_state_dict(child.state_dict())
            setattr(module, name, synced)
        else:
            synchronize_batch_norm(child)
    return module

"""How torch uses the processor: so many threads, and the faster of its two ways to multiply matrices.

Left alone, torch multiplies by a library that is slow on processors not of its maker's; it takes the other only where it is
told that less precision will do. On many processors that one is just as exact, and two to four times as fast. So it is
tried: where the result is not as exact, everything stays as it was.
"""

from __future__ import annotations

import torch

EXACT = 1e-5  # of the largest entry; sums of single precision stay far below, those of bfloat16 far above


def use(threads: int) -> None:
    torch.set_num_threads(threads)
    multiply_quickly()


def multiply_quickly() -> bool:
    """Whether the faster way is exact here and was taken. The switch is a GPU's too, and there it would cost precision.

    torch's fused attention makes many small products, one by one, and each pays the faster way's overhead: its gradient takes
    eight times as long. Attention as two large products keeps what was won.
    """
    if torch.cuda.is_available():
        return False
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    if exact():
        torch.backends.cuda.enable_flash_sdp(False)  # whose name is of GPUs, but which is heeded on processors too
        return True
    torch.set_float32_matmul_precision(before)
    return False


def exact() -> bool:
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((64, 256, 128), (512, 64, 256)):
        a, b = (torch.randn(shape, generator=generator) for shape in ((rows, inner), (columns, inner)))
        wanted = a.double() @ b.double().T
        found = torch.nn.functional.linear(a, b).double()
        if (found - wanted).abs().max() > EXACT * wanted.abs().max():
            return False
    return True

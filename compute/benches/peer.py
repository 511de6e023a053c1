# The operations of the benchmark on a GPU, by PyTorch. Run by tensors.rs with the number of the device.
import statistics
import sys
import time

import torch

device = torch.device("cuda", int(sys.argv[1]))
torch.backends.cuda.matmul.allow_tf32 = False
types = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def timed(run):
    times = []
    for turn in range(16):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(10):
            run()
        torch.cuda.synchronize(device)
        # The first turn warms up.
        if turn:
            times.append((time.perf_counter() - start) / 10)
    return statistics.median(times)


print(f"  PyTorch {torch.__version__}:")
for name, dtype in types.items():
    for n in (1024, 4096, 8192):
        x = torch.rand(n, n, device=device, dtype=dtype)
        print(f"    matmul {name} {n}³: {2 * n**3 / timed(lambda: x @ x) / 1e12:.1f} TFLOP/s")
    for rows, width in ((4096, 1024), (16384, 4096), (65536, 8192)):
        x = torch.rand(rows, width, device=device, dtype=dtype)
        size = 2 * x.numel() * x.element_size()
        for what, run in (
            ("element-wise", lambda: torch.nn.functional.silu(x)),
            ("softmax", lambda: torch.softmax(x, 1)),
        ):
            print(f"    {what} {name} {rows}×{width}: {size / timed(run) / 1e9:.0f} GB/s")
    for causal in (False, True):
        x = torch.rand(4, 16, 2048, 64, device=device, dtype=dtype)
        attend = torch.nn.functional.scaled_dot_product_attention
        work = 4 * 4 * 16 * 2048 * 2048 * 64 / (2 if causal else 1)
        label = ", causal" if causal else ""
        print(f"    attention {name} 4×16×2048×64{label}: {work / timed(lambda: attend(x, x, x, is_causal=causal)) / 1e12:.2f} TFLOP/s")

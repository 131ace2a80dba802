"""How a building answers to a shaking ground: (K - w² M + i w C) u = f at 10,000 frequencies.

Needs: pip install "dasksolve[plot]"
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import dasksolve

PICTURE = Path(sys.argv[1] if len(sys.argv) > 1 else "frequency_response.png")
STOREYS, MASS, STIFFNESS = 10, 2e5, 3e8  # kg and N/m of each storey
DAMPING = 0.15, 8e-4  # of M in 1/s, and of K in s (Rayleigh)

mass = MASS * np.eye(STOREYS)
stiffness = STIFFNESS * (2 * np.eye(STOREYS) - np.eye(STOREYS, k=1) - np.eye(STOREYS, k=-1))
stiffness[-1, -1] = STIFFNESS  # nothing above the roof
damping = DAMPING[0] * mass + DAMPING[1] * stiffness

hertz = np.linspace(0.05, 12, 10_000)
w = 2 * np.pi * hertz[:, None, None]
dynamic = stiffness - w**2 * mass + 1j * w * damping  # (10000, 10, 10), complex128
force = -mass.sum(axis=1)  # of a ground that accelerates by 1 m/s²

u = dasksolve.solve(dynamic, force)  # one vector for every frequency
residual = np.abs(np.einsum("fij,fj->fi", dynamic, u) - force).max() / np.abs(force).max()
modes = np.sqrt(np.linalg.eigvalsh(stiffness / MASS)) / (2 * np.pi)
roof, first = 1e3 * np.abs(u[:, -1]), 1e3 * np.abs(u[:, 0])
print(f"relative residual {residual:.1e}")
print(f"largest answer at {hertz[roof.argmax()]:.2f} Hz; first undamped mode at {modes[0]:.2f} Hz")

figure = Figure(figsize=(7, 4.2), layout="constrained")
axes = figure.subplots()
for mode in modes[modes < hertz[-1]]:
    axes.axvline(mode, color="0.8", linewidth=1)
axes.semilogy(hertz, roof, color="#0072b2", label="roof")
axes.semilogy(hertz, first, color="#d55e00", linestyle="--", label="first storey")
axes.set(xlabel="Frequency (Hz)", ylabel="Displacement per ground\nacceleration (mm / (m/s²))")
axes.set(xlim=(0, 12), title="A building of ten storeys (grey: its undamped modes)")
axes.legend()
figure.savefig(PICTURE, dpi=120)
print(f"response in {PICTURE}")

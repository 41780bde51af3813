"""How much of its rating hardware draws, and what stands around it: figures with their sources."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A figure that is not known exactly: where it most likely is, and what it lies between."""

    low: float
    mid: float
    high: float

    def __mul__(self, other: Range | float) -> Range:
        """Both at their low end, both in the middle, both at their high end."""
        if isinstance(other, Range):
            return Range(self.low * other.low, self.mid * other.mid, self.high * other.high)
        return Range(self.low * other, self.mid * other, self.high * other)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


_NODE = "https://arxiv.org/abs/2506.14551, 2025-06"

# Of the device's rating, by the device alone. "Even computationally intensive workloads operate at
# only 76%" of a node's rating; the same source has no figure for devices that wait for data.
DEVICE_DRAW = Range(0.5, 0.76, 1.0)
DEVICE_DRAW_WHY = (
    "a device draws 50 to 100% of its rated power, most likely 76%: measured on training nodes "
    f"with 8 H100 ({_NODE}); one that waits for its data draws less"
)

# Of the device's rating, by the device and its part of the computer around it. The same nodes are
# rated at 10.2 kW for 8 devices of 700 W, which is 1.82 times the devices' rating; they drew 76%
# of that. The low end is a device at half its rating in a computer that draws nothing.
_NODE_RATING = 10_200 / (8 * 700)
SYSTEM_DRAW = Range(0.5, 0.76 * _NODE_RATING, _NODE_RATING)
SYSTEM_DRAW_WHY = (
    "a device and its part of the computer draw 0.5 to 1.8 times the device's rated power, most "
    "likely 1.4 times: training nodes with 8 H100 of 700 W, rated 10.2 kW, drew 76% of that "
    f"({_NODE})"
)

# Energy of the whole building per energy of the computers in it.
BUILDING = Range(1.0, 1.54, 1.65)
BUILDING_WHY = (
    "cooling and losses of the building: a factor of 1.0 (your own room) to 1.65, most likely "
    "1.54: averages of data centres in 2014 and 2025 (Uptime Institute, Global Data Center Survey "
    "2025)"
)

# kg CO2e per kWh.
GRID = Range(0.03, 0.458, 0.713)
GRID_WHY = (
    "a default, as no grid was given: 0.458 kg CO2e per kWh, the world's average of 2025 (Ember, "
    "Global Electricity Review 2026, https://ember-energy.org/latest-insights/"
    "global-electricity-review-2026/), between 0.03 (Norway) and 0.713 (India) in 2023 (Ember, "
    "2024-07). Give grid_kg_per_kwh="
)

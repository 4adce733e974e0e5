package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// percentile returns the nearest-rank percentile p, of 0 to 100, of what is sorted; 0 of nothing.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median returns the middle of the values; of an even number the mean of the two in the middle; 0 of none.
func median[N cmp.Ordered](values []N, mean func(a, b N) N) N {
	var zero N
	if len(values) == 0 {
		return zero
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return mean(sorted[half-1], sorted[half])
}

func medianFloat(values []float64) float64 {
	return median(values, func(a, b float64) float64 { return (a + b) / 2 })
}

// spread returns how far the values are apart, as a part of their median; 0 where that means nothing.
func spread(values []float64) float64 {
	m := medianFloat(values)
	if len(values) < 2 || m == 0 {
		return 0
	}
	return (slices.Max(values) - slices.Min(values)) / m
}

// ratio is a to b, NaN where there is nothing to compare with.
func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// busyness is how much the machine has worked, and how much of it for us.
type busyness struct {
	at      time.Time
	all, us time.Duration
	err     error
}

// parseBusy returns the CPU time of everything but idling and waiting, of all CPUs, from /proc/stat. What a hypervisor took
// for others (steal) counts: it was not ours.
func parseBusy(data []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	fields := strings.Fields(string(line))
	const idle, wait, guest = 4, 5, 9 // guest is in user too
	if len(fields) <= guest || fields[0] != "cpu" {
		return 0, fmt.Errorf("no CPU times in %q", line)
	}
	var ticks time.Duration
	for i, f := range fields[1:guest] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("no CPU times in %q: %w", line, err)
		}
		if i+1 != idle && i+1 != wait {
			ticks += time.Duration(n)
		}
	}
	return ticks * clockTick, nil
}

// lookBusy looks at the machine. Ours are this process, what it has started, and RabbitMQ, which somebody else has.
func lookBusy() busyness {
	b := busyness{at: time.Now()}
	data, err := os.ReadFile("/proc/stat")
	if err == nil {
		b.all, err = parseBusy(data)
	}
	b.err = err
	stats := make(map[int]stat)
	rabbit := make(map[int]bool)
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if s, err := parseStat(line); err == nil {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // a number, by the pattern
			stats[pid] = s
			rabbit[pid] = bytes.Contains(line, []byte("(beam.smp)"))
		}
	}
	for pid, s := range stats {
		ours := rabbit[pid]
		for p := pid; p > 1 && !ours; p = stats[p].parent {
			ours = p == os.Getpid()
		}
		if ours {
			b.us += s.cpu
		}
	}
	return b
}

// others returns the part of the machine's CPU time that others have had since an earlier look.
func (b busyness) others(earlier busyness) float64 {
	capacity := b.at.Sub(earlier.at) * time.Duration(runtime.NumCPU())
	if b.err != nil || earlier.err != nil || capacity <= 0 {
		return 0 // nothing is known
	}
	return max(0, float64((b.all-earlier.all)-(b.us-earlier.us))/float64(capacity))
}

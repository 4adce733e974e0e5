package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc: USER_HZ, which Linux has fixed at 100 a second for its users.
const clockTick = time.Second / 100

// stat is what /proc/PID/stat says of a process.
type stat struct {
	parent int
	cpu    time.Duration // user and system, of all threads, also those that have ended
}

// parseStat reads a line of /proc/PID/stat. The second field is the program's name in parentheses, which may itself have
// spaces and parentheses: what counts begins after the last one.
func parseStat(line []byte) (stat, error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("no name in %q", line)
	}
	fields := strings.Fields(string(line[end+1:])) // from field 3 on
	const parent, user, system = 4 - 3, 14 - 3, 15 - 3
	if len(fields) <= system {
		return stat{}, fmt.Errorf("%d fields after the name in %q", len(fields), line)
	}
	var numbers [3]int64
	for i, f := range []int{parent, user, system} {
		n, err := strconv.ParseInt(fields[f], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("field %d of %q: %w", f+3, line, err)
		}
		numbers[i] = n
	}
	return stat{parent: int(numbers[0]), cpu: time.Duration(numbers[1]+numbers[2]) * clockTick}, nil
}

// parseKB returns the value in bytes of a line like "VmRSS:   1234 kB" of /proc/PID/status or smaps_rollup.
func parseKB(data []byte, name string) (int64, error) {
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) == 3 && fields[0] == name+":" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no %s", name)
}

// proc is a process at a moment.
type proc struct {
	pid  int
	name string
	cpu  time.Duration
	rss  int64 // resident bytes, shared pages too
	pss  int64 // resident bytes, shared pages divided among those that share them
}

func readProc(pid int) (proc, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	line, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return proc{}, err
	}
	s, err := parseStat(line)
	if err != nil {
		return proc{}, err
	}
	p := proc{pid: pid, cpu: s.cpu}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return proc{}, err
	}
	if p.rss, err = parseKB(status, "VmRSS"); err != nil {
		return proc{}, fmt.Errorf("process %d: %w", pid, err)
	}
	if rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup")); err == nil {
		p.pss, _ = parseKB(rollup, "Pss") // an old kernel has none
	}
	args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	p.name = nameOf(strings.Split(strings.TrimRight(string(args), "\x00"), "\x00"))
	return p, err
}

// nameOf names a process after its arguments: a plugin after its transport.
func nameOf(args []string) string {
	if n := len(args); n >= 3 && args[n-2] == "plugin" {
		return args[n-1]
	}
	if len(args) > 1 && args[1] == bridgeCommand {
		return "bridge"
	}
	return "core"
}

// family returns a process and its children, the process first.
func family(pid int) ([]proc, error) {
	first, err := readProc(pid)
	if err != nil {
		return nil, err
	}
	all := []proc{first}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if s, err := parseStat(line); err != nil || s.parent != pid {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue // "self" and the like
		}
		if p, err := readProc(child); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// used returns the CPU time of each process between two looks, by name.
func used(before, after []proc) map[string]time.Duration {
	start := make(map[int]time.Duration, len(before))
	for _, p := range before {
		start[p.pid] = p.cpu
	}
	sum := make(map[string]time.Duration)
	for _, p := range after {
		sum[p.name] += p.cpu - start[p.pid]
	}
	return sum
}

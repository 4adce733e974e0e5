package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
)

// process is an operating system process as go-plugin wants it. go-plugin's own lets a plugin end the host (with a log line
// whose message is no text), waits for whoever has inherited the plugin's output, and is started on any thread.
type process struct {
	spawn  *spawner
	lines  *lines
	tls    bool
	cmd    *exec.Cmd
	tmpDir string // of go-plugin, where the socket belongs
	name   string
	stdout *io.PipeReader
	exited chan struct{} // closed when the process has ended

	mu        sync.Mutex
	id        int
	killed    bool  // kill was called
	err       error // of Wait
	conn      *grpc.ClientConn
	reject    error // why the address of the plugin is not taken
	handshake *handshake
}

var _ runner.Runner = (*process)(nil)

// prepare is what go-plugin's RunnerFunc does.
func (p *process) prepare(path string, e Executable, env []string, tmpDir string) {
	p.tmpDir, p.name = tmpDir, e.Path
	p.cmd = exec.Command(path, e.Args...) //nolint:noctx // go-plugin ends it, by Kill
	p.cmd.Args[0] = e.Path
	p.cmd.Env = env
	p.cmd.SysProcAttr = sysProcAttr()
	// Whoever has inherited the plugin's output from it does not keep us from seeing its end.
	p.cmd.WaitDelay = 500 * time.Millisecond
	r, w := io.Pipe()
	p.stdout = r
	p.handshake = &handshake{pipe: w, rest: p.lines.writer("stdout")}
	p.cmd.Stdout = p.handshake
	p.cmd.Stderr = p.lines.writer("stderr")
}

// Start implements [runner.Runner].
func (p *process) Start(context.Context) error {
	if err := p.spawn.spawn(p.cmd); err != nil {
		p.handshake.close()
		p.mu.Lock()
		p.reject = cannotRun(p.cmd.Args[0], err)
		p.mu.Unlock()
		return err
	}
	p.mu.Lock()
	p.id = p.cmd.Process.Pid
	killed := p.killed
	p.mu.Unlock()
	go p.reap()
	if killed {
		p.kill()
	}
	return nil
}

// reap waits for the end of the process. go-plugin waits for it, in Wait, but not before the end of its output, which is
// seen here.
func (p *process) reap() {
	err := p.cmd.Wait()
	p.handshake.close()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	close(p.exited)
}

// Wait implements [runner.Runner]. go-plugin calls it once, if the process was started.
func (p *process) Wait(context.Context) error {
	<-p.exited
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Kill implements [runner.Runner].
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// kill ends the process, and those that it has started in its group, at once. It does not block.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	if p.id == 0 {
		return
	}
	select {
	case <-p.exited:
		return // the number may be another's by now
	default:
	}
	_ = syscall.Kill(-p.id, syscall.SIGKILL)
	_ = p.cmd.Process.Kill()
}

// noteConn notes the connection to the process. It is a gRPC interceptor, which does nothing else.
func (p *process) noteConn(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	p.mu.Lock()
	p.conn = cc
	p.mu.Unlock()
	return next(ctx, desc, cc, method, opts...)
}

// closeConn closes the connection. go-plugin does that too, but for one that it has made and then failed to use.
func (p *process) closeConn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// cleanUp removes what go-plugin has left behind.
func (p *process) cleanUp() {
	if p.tmpDir != "" {
		_ = os.RemoveAll(p.tmpDir)
	}
}

func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// exitError says how the process has ended, after it has.
func (p *process) exitError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	if last := p.lines.last(); last != "" {
		return fmt.Errorf("it ended (%s); its last words: %s", how, last)
	}
	return fmt.Errorf("it ended (%s)", how)
}

func (p *process) refused() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reject
}

// noise returns what the process has printed in the place of a handshake, or "".
func (p *process) noise() string {
	if p.handshake == nil {
		return ""
	}
	return p.handshake.noise()
}

// Diagnose implements [runner.Runner]. What there is to say is said by startError.
func (p *process) Diagnose(context.Context) string { return "" }

// Stdout implements [runner.Runner]. It has the handshake line and nothing else.
func (p *process) Stdout() io.ReadCloser { return p.stdout }

// Stderr implements [runner.Runner]. It is empty: lines has it.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(bytes.NewReader(nil)) }

// Name implements [runner.Runner].
func (p *process) Name() string { return p.name }

// ID implements [runner.Runner]. Without a process it is "": there is nothing to kill.
func (p *process) ID() string {
	if id := p.pid(); id != 0 {
		return strconv.Itoa(id)
	}
	return ""
}

// PluginToHost implements [runner.AddrTranslator]. The address comes from the plugin: it must not lead us anywhere else.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	err := p.checkAddress(network, address)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reject = err
	return network, address, err
}

func (p *process) checkAddress(network, address string) error {
	switch network {
	case "unix":
		if dir := filepath.Dir(filepath.Clean(address)); dir != filepath.Clean(p.tmpDir) {
			return fmt.Errorf("its socket is at %s: it has to be in the folder that PLUGIN_UNIX_SOCKET_DIR names", clean(address, maxValue))
		}
		return nil
	case "tcp":
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("its address is %s: it has to be one of this machine's own, such as 127.0.0.1", clean(address, maxValue))
		}
		if !p.tls {
			return errNeedsTLS
		}
		return nil
	}
	return fmt.Errorf("its address is of the unknown kind %s", clean(network, maxValue))
}

// HostToPlugin implements [runner.AddrTranslator].
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// maxHandshake is the longest handshake line, with a certificate in it.
const maxHandshake = 8 << 10

// handshake is the standard output of a plugin: its first line goes to go-plugin, everything after it into the log.
type handshake struct {
	pipe *io.PipeWriter
	rest io.Writer

	mu   sync.Mutex
	line []byte
	done bool
	bad  string
}

// Write implements [io.Writer] for the goroutine that copies the output.
func (h *handshake) Write(b []byte) (int, error) {
	h.mu.Lock()
	done := h.done
	if !done {
		h.line = append(h.line, b...)
	}
	line := h.line
	h.mu.Unlock()
	if done {
		return h.rest.Write(b)
	}
	i := bytes.IndexByte(line, '\n')
	if i < 0 && len(line) < maxHandshake {
		return len(b), nil
	}
	if i < 0 {
		i = len(line) - 1
	}
	first := string(line[:i])
	if strings.Count(first, "|") < 4 {
		h.mu.Lock()
		h.bad = clean(first, maxValue)
		h.mu.Unlock()
		first = "" // go-plugin would show all of it
	}
	h.mu.Lock()
	h.done, h.line = true, nil
	h.mu.Unlock()
	_, _ = io.WriteString(h.pipe, first+"\n") // no error: nobody reads if go-plugin has given up
	_ = h.pipe.Close()
	if rest := line[i+1:]; len(rest) > 0 {
		_, _ = h.rest.Write(rest)
	}
	return len(b), nil
}

// close says that there is no more output.
func (h *handshake) close() { _ = h.pipe.Close() }

func (h *handshake) noise() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bad
}

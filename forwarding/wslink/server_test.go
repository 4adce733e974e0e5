package wslink

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSubprotocolIsEchoedWhenOfferedAndNotRequired(t *testing.T) {
	addr, _, _ := start(t, ServerOptions{}, echo)
	for offered, want := range map[string]string{
		"":                "",
		"noflo":           "noflo",
		"other, noflo":    "noflo",
		"other":           "",
		"graphql-ws,mqtt": "",
	} {
		var headers []string
		if offered != "" {
			headers = append(headers, "Sec-WebSocket-Protocol: "+offered)
		}
		response := connect(t, addr).shake(headers...)
		if got := response.Header.Get("Sec-WebSocket-Protocol"); response.StatusCode != 101 || got != want {
			t.Errorf("offered %q: status %d, got %q, want %q", offered, response.StatusCode, got, want)
		}
	}
}

func TestOrigins(t *testing.T) {
	o, err := newOrigins([]string{"https://app.flowhub.io", "http://ui.lan:8080/", "chrome-extension://abc", "https://port.example:443"},
		[]string{"Gateway.lan"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host, origin string
		want         bool
	}{
		{"gw:3569", "", true}, // no header: a program

		{"gw:3569", "https://app.flowhub.io", true},
		{"gw:3569", "HTTPS://APP.flowhub.io:443", true},
		{"gw:3569", "http://app.flowhub.io", false},
		{"gw:3569", "https://app.flowhub.io:8443", false},
		{"gw:3569", "https://app.flowhub.io.evil.example", false},
		{"gw:3569", "https://evil.example/https://app.flowhub.io", false},
		{"gw:3569", "https://app.flowhub.io@evil.example", false},
		{"gw:3569", "http://ui.lan:8080", true},
		{"gw:3569", "http://ui.lan", false},
		{"gw:3569", "chrome-extension://abc", true},
		{"gw:3569", "https://port.example", true},

		{"gw:3569", "http://localhost:9999", true},
		{"gw:3569", "https://LOCALHOST", true},
		{"gw:3569", "http://127.0.0.1:8080", true},
		{"gw:3569", "http://[::1]:8080", true},
		{"gw:3569", "http://localhost.evil.example", false},
		{"gw:3569", "http://127.0.0.1.evil.example", false},
		{"gw:3569", "file://localhost", false},

		{"192.168.1.7:3569", "http://192.168.1.7:3569", true},
		{"192.168.1.7:3569", "http://192.168.1.8:3569", false},
		{"[fe80::1]:3569", "http://[fe80::1]:3569", true},
		{"gateway.lan:3569", "http://gateway.lan:3569", true},
		{"gateway.lan:3569", "http://gateway.lan:80", false},
		// A name that was pointed at the gateway after its page had been loaded.
		{"evil.example:3569", "http://evil.example:3569", false},

		{"gw:3569", "null", false},
		{"gw:3569", "://", false},
		{"gw:3569", "nonsense", false},
	} {
		r := &http.Request{Host: c.host, Header: http.Header{}}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if got := o.allow(r); got != c.want {
			t.Errorf("%s at %s: %v, want %v", c.origin, c.host, got, c.want)
		}
	}
	two := &http.Request{Host: "gw", Header: http.Header{"Origin": {"https://app.flowhub.io", "https://evil.example"}}}
	if o.allow(two) {
		t.Error("two origins are allowed")
	}
	if o, err = newOrigins([]string{"null"}, nil); err != nil || !o.allow(&http.Request{Header: http.Header{"Origin": {"null"}}}) {
		t.Errorf("null is not allowed though it is listed: %v", err)
	}
	for _, bad := range []string{"", "*", "app.flowhub.io", "https://*.flowhub.io", "https://app.flowhub.io/x", "https://u@app.flowhub.io"} {
		if _, err := newOrigins([]string{bad}, nil); err == nil {
			t.Errorf("%q is taken for an origin", bad)
		}
	}
}

func TestForeignOriginIsRefused(t *testing.T) {
	addr, server, _ := start(t, ServerOptions{Origins: []string{"https://app.flowhub.io"}}, func(_ context.Context, _ *Conn, c Client) {
		if diff := cmp.Diff(Client{RemoteAddr: c.RemoteAddr, Origin: "https://app.flowhub.io", UserAgent: "test/1"}, c); diff != "" ||
			!strings.HasPrefix(c.RemoteAddr, "127.0.0.1:") {
			t.Error(c.RemoteAddr, diff)
		}
	})
	if got := connect(t, addr).shake("Origin: https://evil.example"); got.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", got.StatusCode)
	}
	if n := server.Clients(); n != 0 {
		t.Errorf("%d clients", n)
	}
	upgrade(t, addr, "Origin: https://app.flowhub.io", "User-Agent: test/1").closing()
}

func TestTooManyClientsAreSentAway(t *testing.T) {
	addr, server, _ := start(t, ServerOptions{Clients: 2}, echo)
	first, second := upgrade(t, addr), upgrade(t, addr)
	response := connect(t, addr).shake()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("status %d", response.StatusCode)
	}
	_ = first.Close()
	eventually(t, "there is a place again", func() bool { return server.Clients() == 1 })
	var third *raw
	eventually(t, "a third client gets it", func() bool {
		third = connect(t, addr)
		return third.shake().StatusCode == http.StatusSwitchingProtocols
	})
	for _, c := range []*raw{second, third} {
		c.send(textFrame("x"))
		if _, got, err := c.next(); err != nil || string(got) != "x" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestHandshakeThatNeverEndsIsCutOff(t *testing.T) {
	addr, _, _ := start(t, ServerOptions{Handshake: 300 * time.Millisecond}, echo)
	for name, first := range map[string]string{
		"nothing":           "",
		"half a line":       "GET / HT",
		"header by header":  handshake,
		"a body never sent": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := connect(t, addr)
			c.send([]byte(first))
			end := make(chan struct{})
			go func() {
				defer close(end)
				_, _ = io.Copy(io.Discard, c.r)
			}()
			drip := time.NewTicker(20 * time.Millisecond)
			defer drip.Stop()
			for {
				select {
				case <-end:
					return
				case <-drip.C:
					if name == "header by header" {
						_, _ = io.WriteString(c, "X: y\r\n")
					}
				case <-time.After(soon):
					t.Fatal("the connection is still there")
				}
			}
		})
	}
}

func TestThoseWhoSayNothingKeepNobodyOut(t *testing.T) {
	addr, _, _ := start(t, ServerOptions{Handshakes: 5, Handshake: time.Hour}, echo)
	var mute []*raw
	for range 20 {
		mute = append(mute, connect(t, addr))
	}
	c := upgrade(t, addr)
	c.send(textFrame("x"))
	if _, got, err := c.next(); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := mute[0].r.ReadByte(); err == nil {
		t.Error("the oldest got an answer")
	} else if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		t.Error("the oldest is still there")
	}
}

func TestPage(t *testing.T) {
	const id = "f18a4ab8-9360-4581-9b0a-000000000000"
	addr, _, _ := start(t, ServerOptions{ID: id, Label: `Hall <1>`}, echo)
	request := func(path, host string) (*http.Response, string) {
		return get(t, addr, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	}
	t.Run("shows the live URL and links to Flowhub", func(t *testing.T) {
		response, body := request("/", "gateway.lan:3569")
		if response.StatusCode != http.StatusOK {
			t.Fatal(response.Status)
		}
		for _, want := range []string{
			"<h1>Hall &lt;1&gt;</h1>", "<code>ws://gateway.lan:3569</code>", ">Open in Flowhub</a>",
			`href="https://app.flowhub.io/#runtime/endpoint?protocol%3Dwebsocket%26address%3Dws%3A%2F%2Fgateway.lan%3A3569%26id%3D` + id + `"`,
			"https://app.flowhub.io are not among the origins", "loaded over https cannot open",
		} {
			if !strings.Contains(body, want) {
				t.Errorf("no %s in\n%s", want, body)
			}
		}
		if strings.Contains(body, "secret") {
			t.Errorf("a secret out of nowhere:\n%s", body)
		}
		if strings.Contains(body, "<script") || strings.Contains(body, "src=") || strings.Contains(body, "<link") {
			t.Errorf("the page loads something:\n%s", body)
		}
		for name, want := range map[string]string{
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"X-Content-Type-Options": "nosniff",
		} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if !response.Close {
			t.Error("the connection stays, and takes a place")
		}
		csp := response.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
			t.Error(csp)
		}
	})
	t.Run("has the secret that the request has, and no other", func(t *testing.T) {
		_, body := request("/?secret=s3%20%2Bcret", "localhost:3569")
		if !strings.Contains(body, "%26secret%3Ds3%20%2Bcret") {
			t.Error(body)
		}
		_, body = request("/?secret=a%3Db", "localhost:3569")
		if strings.Contains(body, "Open in Flowhub") || strings.Contains(body, "a=b") || !strings.Contains(body, "cannot be in a live URL") {
			t.Error(body)
		}
	})
	t.Run("takes nothing from the request that is no host", func(t *testing.T) {
		for _, host := range []string{"a&b=c", `"><script>`, "a/b", "", "[fe80::1%25eth0]:80", "x:port"} {
			response, body := request("/", host)
			if response.StatusCode == http.StatusOK && !strings.Contains(body, "<code>ws://"+addr+"</code>") {
				t.Errorf("host %q: %s", host, body)
			}
		}
	})
	t.Run("is the only one", func(t *testing.T) {
		for path, want := range map[string]int{"/favicon.ico": 404, "/x": 404, "/%2e%2e/": 404} {
			if response, _ := request(path, "x"); response.StatusCode != want {
				t.Errorf("%s: %d", path, response.StatusCode)
			}
		}
		if response, _ := get(t, addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); response.StatusCode != http.StatusMethodNotAllowed {
			t.Error(response.Status)
		}
		c := connect(t, addr)
		c.send([]byte("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"))
		if all, _ := io.ReadAll(c.r); !strings.HasPrefix(string(all), "HTTP/1.1 200") || strings.Contains(string(all), "<html") {
			t.Errorf("%s", all)
		}
	})
	t.Run("without an ID has no link", func(t *testing.T) {
		addr, _, _ := start(t, ServerOptions{Public: "wss://gateway.example"}, echo)
		_, body := get(t, addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if strings.Contains(body, "href") || !strings.Contains(body, "<code>wss://gateway.example</code>") {
			t.Error(body)
		}
	})
}

func TestLiveURL(t *testing.T) {
	live, err := LiveURL("http://localhost:9999/", "wss://gw:1", "id-1", "a b/c")
	if err != nil {
		t.Fatal(err)
	}
	// What noflo-ui does: split at slashes, decode, split at ampersands and equals signs.
	_, hash, _ := strings.Cut(live, "#")
	parts := strings.Split(hash, "/")
	decoded, err := url.PathUnescape(parts[len(parts)-1])
	if err != nil || len(parts) != 2 || parts[0] != "runtime" {
		t.Fatal(live, err)
	}
	want := "endpoint?protocol=websocket&address=wss://gw:1&id=id-1&secret=a b/c"
	if decoded != want {
		t.Errorf("got %s, want %s", decoded, want)
	}
	if _, err := LiveURL(FlowhubURL, "ws://a", "b", "top=secret"); err == nil || strings.Contains(err.Error(), "top") {
		t.Errorf("the secret is refused with: %v", err)
	}
	if _, err := LiveURL(FlowhubURL, "ws://a?x=y", "b", ""); err == nil {
		t.Error("an address with = is taken")
	}
}

func TestOptionsThatCannotBeAreRefused(t *testing.T) {
	for _, o := range []ServerOptions{
		{Origins: []string{"*"}},
		{UI: "app.flowhub.io"},
		{UI: "javascript:alert(1)"},
		{UI: "https://a/#b"},
		{Public: "gateway"},
		{Public: "http://gateway"},
		{Public: "ws://a b"},
	} {
		if _, err := NewServer(o, silent(), echo); err == nil {
			t.Errorf("taken: %+v", o)
		}
	}
}

func TestEndOfServerSendsEverybodyAway(t *testing.T) {
	var sessions sync.WaitGroup
	addr, server, stop := start(t, ServerOptions{}, func(ctx context.Context, conn *Conn, c Client) {
		sessions.Add(1)
		defer sessions.Done()
		echo(ctx, conn, c)
	})
	var clients []*raw
	for range 20 {
		clients = append(clients, upgrade(t, addr))
	}
	mute := connect(t, addr) // is in the middle of a handshake
	eventually(t, "all are there", func() bool { return server.Clients() == 20 })
	var told sync.WaitGroup
	for _, c := range clients {
		told.Go(func() {
			if got, _ := c.closing(); got != GoingAway {
				t.Errorf("status %d, want %d", got, GoingAway)
			}
			_ = c.Close()
		})
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	sessions.Wait()
	told.Wait()
	if n := server.Clients(); n != 0 {
		t.Errorf("%d clients are left", n)
	}
	if _, err := mute.r.ReadByte(); err == nil {
		t.Error("the handshake goes on")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
		t.Error("the listener is open")
	}
}

func TestEndOfServerIsBounded(t *testing.T) {
	release := make(chan struct{})
	var gone sync.WaitGroup
	addr, server, stop := start(t, ServerOptions{Drain: 100 * time.Millisecond, Limits: Limits{Close: 50 * time.Millisecond}},
		func(context.Context, *Conn, Client) { gone.Add(1); defer gone.Done(); <-release })
	upgrade(t, addr)
	eventually(t, "it is there", func() bool { return server.Clients() == 1 })
	begin := time.Now()
	err := stop()
	if err == nil || err.Error() != "wslink: 1 sessions have not ended within 100ms" {
		t.Error(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	close(release)
	eventually(t, "it ends late", func() bool { return server.Clients() == 0 })
}

func TestPanicOfOneSessionIsItsOwn(t *testing.T) {
	var log lines
	// A client that is only being taken when the server ends may be cut off: net/http has it still.
	var taken sync.WaitGroup
	taken.Add(2)
	server, err := NewServer(ServerOptions{}, slog.New(slog.NewTextHandler(&log, nil)), func(ctx context.Context, conn *Conn, _ Client) {
		taken.Done()
		if frame, _ := conn.Read(ctx); string(frame) == "panic" {
			panic("out of order")
		}
		_, _ = conn.Read(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	c, other := upgrade(t, l.Addr().String()), upgrade(t, l.Addr().String())
	taken.Wait()
	c.send(textFrame("panic"))
	if got, reason := c.closing(); got != Failed || reason != "internal error" {
		t.Errorf("status %d %q", got, reason)
	}
	if !strings.Contains(log.String(), "session panicked") || !strings.Contains(log.String(), "out of order") {
		t.Errorf("log:\n%s", log.String())
	}
	cancel()
	if got, _ := other.closing(); got != GoingAway {
		t.Errorf("the other one: status %d", got)
	}
	_ = other.Close()
	_ = c.Close()
	if err := receive(t, done); err != nil {
		t.Error(err)
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestTwoHundredClientsAtOnce(t *testing.T) {
	const clients, each = 200, 20
	addr, server, stop := start(t, ServerOptions{}, echo)
	var all sync.WaitGroup
	for n := range clients {
		all.Go(func() {
			c, err := Dial(t.Context(), "ws://"+addr, DialOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close(Normal, "") }()
			for i := range each {
				sent := fmt.Sprintf("%d of %d", i, n)
				if err := c.Write(t.Context(), []byte(sent)); err != nil {
					t.Error(err)
					return
				}
				if got, err := c.Read(t.Context()); err != nil || string(got) != sent {
					t.Errorf("%q, %v; want %q", got, err, sent)
					return
				}
			}
		})
	}
	all.Wait()
	eventually(t, "all are gone", func() bool { return server.Clients() == 0 })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// certify writes a certificate for 127.0.0.1 with that serial number, and returns its pool.
func certify(t *testing.T, certFile, keyFile string, serial int64) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{certFile, "CERTIFICATE", der}, {keyFile, "PRIVATE KEY", private}} {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		pool.AppendCertsFromPEM(text)
		if err := os.WriteFile(f.name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := Certificate(certFile, keyFile, silent()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	roots := certify(t, certFile, keyFile, 1)
	config, err := Certificate(certFile, keyFile, silent())
	if err != nil {
		t.Fatal(err)
	}
	addr, _, _ := start(t, ServerOptions{TLS: config, ID: "x"}, echo)
	try := func(roots *x509.CertPool) error {
		c, err := Dial(t.Context(), "wss://"+addr, DialOptions{TLS: &tls.Config{RootCAs: roots}})
		if err != nil {
			return err
		}
		defer func() { _ = c.Close(Normal, "") }()
		sent := ofSize(300_000)
		if err := c.Write(t.Context(), sent); err != nil {
			return err
		}
		if got, err := c.Read(t.Context()); err != nil || string(got) != string(sent) {
			return fmt.Errorf("%d bytes came back: %w", len(got), err)
		}
		return nil
	}
	if err := try(roots); err != nil {
		t.Error(err)
	}
	if err := try(x509.NewCertPool()); err == nil {
		t.Error("a certificate that nobody vouches for is taken")
	}

	// One file is new, the other not yet: the old pair stays.
	if err := os.WriteFile(certFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lookAgain)
	if err := try(roots); err != nil {
		t.Error(err)
	}
	renewed := certify(t, certFile, keyFile, 2)
	eventually(t, "the new certificate is in force", func() bool { return try(renewed) == nil })

	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: renewed}, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}}
	response, err := client.Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), "<code>wss://"+addr) || response.ProtoMajor != 1 {
		t.Errorf("HTTP/%d, %v\n%s", response.ProtoMajor, err, body)
	}
}

func TestPeerOfTLSThatTakesNothingIsClosedInTime(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	roots := certify(t, certFile, keyFile, 1)
	config, err := Certificate(certFile, keyFile, silent())
	if err != nil {
		t.Fatal(err)
	}
	took := make(chan time.Duration, 1)
	addr, _, _ := start(t, ServerOptions{TLS: config, Limits: Limits{Close: 100 * time.Millisecond}}, func(ctx context.Context, conn *Conn, _ Client) {
		var writing sync.WaitGroup
		writing.Go(func() { _ = flood(ctx, conn) })
		time.Sleep(300 * time.Millisecond)
		begin := time.Now()
		_ = conn.Close(TryLater, "")
		writing.Wait()
		took <- time.Since(begin)
	})
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, handshake+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, took); d > 2*time.Second {
		t.Errorf("took %s", d)
	}
}

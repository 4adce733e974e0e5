package plugin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/core/wire"
)

// beForeign is a plugin that is made without pluginmain, as one in another language is: it prints the handshake line by
// itself, and serves nothing but the contract.
func beForeign(how string) int {
	if err := serveForeign(how); err != nil {
		fmt.Fprintln(os.Stderr, "[ERROR]", err)
		return 1
	}
	return 0
}

func serveForeign(how string) error {
	options := wire.ServerOptions()
	network, address := "unix", filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s")
	if how != "foreign-unix" {
		network, address = "tcp", "127.0.0.1:0"
	}
	var cert string
	if client := os.Getenv("PLUGIN_CLIENT_CERT"); client != "" {
		config, der, err := serverTLS(client)
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
		cert = base64.RawStdEncoding.EncodeToString(der)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	wire.Register(server, &named{Driver: transporttest.NewMemory().Driver(), name: how})
	said := l.Addr().String()
	switch how {
	case "foreign-far":
		said = "192.0.2.1:80"
	case "foreign-elsewhere":
		network, said = "unix", "/run/docker.sock"
	}
	fmt.Fprintln(os.Stderr, "listening on", l.Addr())
	fmt.Printf("1|1|%s|%s|grpc|%s\n", network, said, cert)
	return server.Serve(l)
}

func serverTLS(client string) (*tls.Config, []byte, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(client)) {
		return nil, nil, fmt.Errorf("no certificate in PLUGIN_CLIENT_CERT")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12,
	}, der, nil
}

func TestPluginWithoutPluginmainServes(t *testing.T) {
	for _, how := range []string{"foreign-unix", "foreign-tcp"} {
		t.Run(how, func(t *testing.T) {
			b := newBed(t)
			p := b.Use(own(how), "")
			defer p.Release()
			ctx := bounded(t)
			conn, err := p.Connect(ctx, transport.ConnectRequest{Name: "n", Config: json.RawMessage(`{}`)})
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(ctx); err != nil {
				t.Error(err)
			}
			pid := p.State().Pid
			if s := p.State(); s.Restarts != 0 {
				t.Errorf("state is %+v", s)
			}
			// It does not end by itself.
			start := time.Now()
			b.stop()
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("the host ended after %v", took)
			}
			if running(pid) {
				t.Error("the plugin still runs")
			}
		})
	}
}

func TestTCPGoesWithTLS(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("foreign-tcp"), "")
	defer p.Release()
	if _, err := p.Driver(bounded(t)); err != nil {
		t.Fatal(err)
	}
	var addr string
	for l := range strings.Lines(b.log.String()) {
		if _, rest, ok := strings.Cut(l, "listening on "); ok {
			addr, _, _ = strings.Cut(rest, `"`)
		}
	}
	if addr == "" {
		t.Fatal("the plugin has not said where it listens")
	}
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // to see who is let in
	if err != nil {
		return // refused in the handshake, as TLS 1.2 does it
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the plugin speaks to somebody without the host's certificate")
	}
}

func TestAddressElsewhereIsRefused(t *testing.T) {
	for how, want := range map[string]string{"foreign-far": "192.0.2.1:80", "foreign-elsewhere": "/run/docker.sock"} {
		t.Run(how, func(t *testing.T) {
			b := newBed(t)
			p := b.Use(own(how), "")
			defer p.Release()
			eventually(t, "a reason", func() bool { return p.State().Reason != "" })
			if s := p.State(); !strings.Contains(s.Reason, want) {
				t.Errorf("state is %+v", s)
			}
		})
	}
}

func TestReplacedProgramGoesOn(t *testing.T) {
	// A host whose own file was replaced, by an upgrade, restarts its built-in plugins as what it is itself.
	dir := t.TempDir()
	path := filepath.Join(dir, "flogate")
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	e := own("memory")
	e.Path = path
	b := newBed(t)
	p := b.Use(e, "")
	defer p.Release()
	if err := os.WriteFile(path+".new", []byte("another program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Driver(bounded(t)); err != nil {
		t.Error(err)
	}
}

package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

const secret = "s3cret-of-the-test"

// try connects and closes again.
func try(t *testing.T, cfg map[string]any) error {
	t.Helper()
	d, log := testDriver(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := d.Connect(ctx, transport.ConnectRequest{Name: "site/bus", Config: obj(t, cfg)})
	if err == nil {
		closeNow(t, c)
	}
	if strings.Contains(fmt.Sprint(err)+log.String(), secret) {
		t.Errorf("the password is in the error or the log: %v\n%s", err, log)
	}
	return err
}

func wantPermanent(t *testing.T, err error) {
	t.Helper()
	if !transport.IsPermanent(err) {
		t.Errorf("got %v; want a permanent error", err)
	}
}

func wantOK(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestWrongPasswordIsPermanent(t *testing.T) {
	b := server(t, brokers.Password("user", secret))
	wantOK(t, try(t, map[string]any{"url": b.URL()}))
	wantOK(t, try(t, map[string]any{"url": "nats://" + b.Addr(), "username": "user", "password": secret}))
	wantPermanent(t, try(t, map[string]any{"url": "nats://" + b.Addr()}))
	wantPermanent(t, try(t, map[string]any{"url": "nats://user:" + secret + "x@" + b.Addr()}))
	wantPermanent(t, try(t, map[string]any{"url": "nats://" + b.Addr(), "token": secret}))
}

func TestToken(t *testing.T) {
	b := server(t, brokers.Config(`authorization { token: "`+secret+`" }`))
	wantOK(t, try(t, map[string]any{"url": "nats://" + b.Addr(), "token": secret}))
	wantOK(t, try(t, map[string]any{"url": "nats://" + secret + "@" + b.Addr()}))
	wantPermanent(t, try(t, map[string]any{"url": "nats://" + b.Addr(), "token": "x"}))
}

// A broker that is not there may come.
func TestNobodyThereMayPass(t *testing.T) {
	b := server(t)
	b.Stop()
	err := try(t, map[string]any{"url": "nats://user:" + secret + "@" + b.Addr()})
	if err == nil || transport.IsPermanent(err) {
		t.Errorf("got %v; want an error that may pass", err)
	}
}

// The first server is gone, the second serves.
func TestServersAreTriedInTurn(t *testing.T) {
	gone, b := server(t), server(t)
	gone.Stop()
	wantOK(t, try(t, map[string]any{"url": gone.URL(), "servers": []string{b.URL()}}))
}

// A server that accepts and says nothing does not hold Connect longer than its context.
func TestConnectToSilenceEndsWithItsContext(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the kernel accepts, nobody speaks
	d, _ := testDriver(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = d.Connect(ctx, transport.ConnectRequest{Config: obj(t, map[string]any{"url": "nats://" + l.Addr().String()})})
	if took := time.Since(start); err == nil || took > 2*time.Second {
		t.Errorf("%v after %v", err, took)
	}
}

func TestTLS(t *testing.T) {
	a, other := brokers.NewAuthority(t), brokers.NewAuthority(t)
	b := server(t, brokers.TLS(a))
	ca := read(t, a.CAFile())
	wantOK(t, try(t, map[string]any{"url": b.URL(), "tls": map[string]any{"ca": ca}}))
	wantOK(t, try(t, map[string]any{"url": "nats://" + b.Addr(), "tls": map[string]any{"ca": ca}}))
	wantOK(t, try(t, map[string]any{"url": b.URL(), "tls": map[string]any{"insecure_skip_verify": true}}))
	wantPermanent(t, try(t, map[string]any{"url": b.URL(), "tls": map[string]any{"ca": read(t, other.CAFile())}}))
	wantPermanent(t, try(t, map[string]any{"url": b.URL(), "tls": map[string]any{"ca": ca, "server_name": "elsewhere"}}))
	wantPermanent(t, try(t, map[string]any{"url": b.URL()}))
	wantPermanent(t, try(t, map[string]any{"url": "nats://" + b.Addr()}))

	plain := server(t)
	wantPermanent(t, try(t, map[string]any{"url": "tls://" + plain.Addr()}))
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestMutualTLS(t *testing.T) {
	a, other := brokers.NewAuthority(t), brokers.NewAuthority(t)
	b := server(t, brokers.MutualTLS(a))
	pair := func(a *brokers.Authority) (cert, key string) {
		certFile, keyFile := a.Client("flogate")
		return read(t, certFile), read(t, keyFile)
	}
	ca := read(t, a.CAFile())
	cert, key := pair(a)
	badCert, badKey := pair(other)
	wantOK(t, try(t, map[string]any{"url": b.URL(), "tls": map[string]any{"ca": ca, "cert": cert, "key": key}}))
	// In TLS 1.3 the server's alert comes after the client is done, and can be lost when the server closes: no class is sure.
	for _, block := range []map[string]any{{"ca": ca}, {"ca": ca, "cert": badCert, "key": badKey}} {
		if err := try(t, map[string]any{"url": b.URL(), "tls": block}); err == nil || !strings.Contains(err.Error(), "tls") {
			t.Errorf("got %v; want an error of TLS", err)
		}
	}
}

func TestNKey(t *testing.T) {
	user, other := nkey(t, nkeys.CreateUser), nkey(t, nkeys.CreateUser)
	b := server(t, brokers.Config(`authorization { users: [ { nkey: `+user.public+` } ] }`))
	wantOK(t, try(t, map[string]any{"url": b.URL(), "nkey": user.seed + "\n"}))
	wantPermanent(t, try(t, map[string]any{"url": b.URL(), "nkey": other.seed}))
}

type keys struct {
	pair         nkeys.KeyPair
	public, seed string
}

func nkey(t *testing.T, create func() (nkeys.KeyPair, error)) keys {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return keys{pair, public, string(seed)}
}

func TestCredentials(t *testing.T) {
	operator, account, user := nkey(t, nkeys.CreateOperator), nkey(t, nkeys.CreateAccount), nkey(t, nkeys.CreateUser)
	encode := func(claims jwt.Claims, by keys) string {
		t.Helper()
		token, err := claims.Encode(by.pair)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	operatorJWT := encode(jwt.NewOperatorClaims(operator.public), operator)
	accountJWT := encode(jwt.NewAccountClaims(account.public), operator)
	userJWT := encode(jwt.NewUserClaims(user.public), account)
	b := server(t, brokers.Volatile(), brokers.Config(
		`operator: `+operatorJWT,
		`resolver: MEMORY`,
		`resolver_preload: { `+account.public+`: `+accountJWT+` }`,
	))
	text, err := jwt.FormatUserConfig(userJWT, []byte(user.seed))
	if err != nil {
		t.Fatal(err)
	}
	wantOK(t, try(t, map[string]any{"url": b.URL(), "credentials": string(text)}))
	wantPermanent(t, try(t, map[string]any{"url": b.URL()}))
	// What is no credentials file is not repeated: it may be another secret.
	wantPermanent(t, try(t, map[string]any{"url": b.URL(), "credentials": secret}))
	stranger := nkey(t, nkeys.CreateUser)
	wrong, err := jwt.FormatUserConfig(encode(jwt.NewUserClaims(stranger.public), nkey(t, nkeys.CreateAccount)), []byte(stranger.seed))
	if err != nil {
		t.Fatal(err)
	}
	wantPermanent(t, try(t, map[string]any{"url": b.URL(), "credentials": string(wrong)}))
}

// A path would be read from wherever the program runs, past the folder to which file() is bound.
func TestPathIsNotTakenForTheText(t *testing.T) {
	a := brokers.NewAuthority(t)
	cert, key := a.Client("flogate")
	creds := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(creds, []byte("-----BEGIN NATS USER JWT-----"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, _ := testDriver(t)
	for _, tt := range []struct {
		config map[string]any
		want   []string
	}{
		{map[string]any{"credentials": creds}, []string{"credentials"}},
		{map[string]any{"tls": map[string]any{"ca": a.CAFile()}}, []string{"tls.ca"}},
		{map[string]any{"tls": map[string]any{"cert": cert, "key": key}}, []string{"tls.cert", "tls.key"}},
		{map[string]any{"tls": map[string]any{"cert": read(t, cert), "key": key}}, []string{"tls.key"}},
		{map[string]any{"tls": map[string]any{"ca": read(t, a.CAFile()), "cert": read(t, cert), "key": read(t, key)}}, nil},
		{map[string]any{"tls": map[string]any{"cert": read(t, cert), "key": read(t, a.CAFile())}}, []string{"tls.cert"}},
	} {
		tt.config["url"] = "tls://h"
		raw := obj(t, tt.config)
		res, err := d.Validate(t.Context(), transport.ValidateRequest{Config: raw})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range res.Problems {
			got = append(got, strings.Join(p.Path, "."))
			if !strings.Contains(p.Message, `file("`) && !strings.Contains(p.Message, "pair") || strings.Contains(p.Message, "user.creds") {
				t.Errorf("message is %q; want advice, without the value", p.Message)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("problems of %s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestValidateFindsEverythingAtOnce(t *testing.T) {
	d, _ := testDriver(t)
	req := transport.ValidateRequest{
		Config: json.RawMessage(`{"url":"http://user:` + secret + `@h","password":"` + secret + `","nkey":"` + secret + `","tls":{"cert":"c"}}`),
		Sources: []transport.Source{
			{Address: "a..b"},
			{Address: "a.*.>", Options: json.RawMessage(`{"stream":"S"}`)},
			{Address: "a", Options: json.RawMessage(`{"deliver":"new","double_ack":true}`)},
			{Address: "a", Options: json.RawMessage(`{"stream":"S","ack_wait":"1ms","deliver":"some","start_time":"now","create_stream":{"storage":"tape"}}`)},
			{Address: "a", Options: json.RawMessage(`{"stream":7}`)},
		},
		Sinks: []transport.Sink{
			{Address: "a.>"},
			{Address: "a", Options: json.RawMessage(`{"stream":"S"}`)},
			{Options: json.RawMessage(`{"stream":"S","dedup":"off","create_stream":{}}`)},
			{Address: "a", Options: json.RawMessage(`{"stream":"S","dedup":"source"}`)},
			{Address: "a", Options: json.RawMessage(`{"stream":"S","dedup":"id"}`)},
			{Address: "a"},
		},
	}
	res, err := d.Validate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range res.Problems {
		got = append(got, fmt.Sprintf("%d/%d %s", p.Where, p.Index, strings.Join(p.Path, ".")))
		if strings.Contains(p.Message, secret) {
			t.Errorf("a secret is in %q", p.Message)
		}
	}
	want := []string{
		"1/0 url", "1/0 password", "1/0 nkey", "1/0 tls.cert", "1/0 tls.cert",
		"2/0 address", "2/2 deliver", "2/2 double_ack", "2/3 deliver", "2/3 start_time", "2/3 deliver", "2/3 ack_wait", "2/3 create_stream.storage", "2/4 ",
		"3/0 address", "3/2 create_stream.subjects",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if tr := res.Sources[1]; !tr.Acks || tr.Place != "stream:S/a.*.>" || tr.Weakness != "" {
		t.Errorf("a stream's traits are %+v", tr)
	}
	if tr := res.Sources[2]; tr.Acks || tr.Place != "subject:a" || !strings.Contains(tr.Weakness, "set stream") {
		t.Errorf("a subject's traits are %+v", tr)
	}
	if tr := res.Sinks[1]; !tr.Confirms || !tr.Deduplicates || tr.Place != "stream:S/a" {
		t.Errorf("a stream's traits are %+v", tr)
	}
	if tr := res.Sinks[2]; !tr.Confirms || tr.Deduplicates || tr.Place != "" {
		t.Errorf("the traits of a stream without dedup are %+v", tr)
	}
	if tr := res.Sinks[3]; !tr.Confirms || !tr.Deduplicates {
		t.Errorf("the traits of a stream with ids of the source are %+v", tr)
	}
	// A message without an id would be doubled.
	if tr := res.Sinks[4]; !tr.Confirms || tr.Deduplicates {
		t.Errorf("the traits of a stream with the publisher's ids are %+v", tr)
	}
	if tr := res.Sinks[5]; tr.Confirms || tr.Deduplicates || tr.Place != "subject:a" || !strings.Contains(tr.Weakness, "set stream") {
		t.Errorf("the traits of a sink without options are %+v", tr)
	}
}

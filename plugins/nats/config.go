package nats

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/flogate/flogate/core/transport"
)

// config is the body of a broker block.
type config struct {
	URL            string     `json:"url"`
	Servers        []string   `json:"servers"`
	Username       string     `json:"username"`
	Password       string     `json:"password"`
	Token          string     `json:"token"`
	Credentials    string     `json:"credentials"`
	NKey           string     `json:"nkey"`
	Domain         string     `json:"domain"`
	ConnectTimeout duration   `json:"connect_timeout"`
	TLS            *tlsConfig `json:"tls"`
}

type tlsConfig struct {
	CA                 string `json:"ca"`
	Cert               string `json:"cert"`
	Key                string `json:"key"`
	ServerName         string `json:"server_name"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify"`
}

const defaultConnectTimeout = 10 * time.Second

func configSchema() transport.Schema {
	return transport.Schema{
		Attributes: []transport.Attribute{
			{Name: "url", Type: transport.String, Required: true, Doc: "nats://host:4222, or tls://host:4222. It may hold a user and a password."},
			{Name: "servers", Type: transport.StringList, Doc: "More URLs of the same cluster, tried in this order after url."},
			{Name: "username", Type: transport.String, Doc: "User name."},
			{Name: "password", Type: transport.String, Secret: true, Doc: "Password of username."},
			{Name: "token", Type: transport.String, Secret: true, Doc: "Authorization token."},
			{Name: "credentials", Type: transport.String, Secret: true, Doc: "The text of a credentials file (JWT and seed): file(\"bus.creds\")."},
			{Name: "nkey", Type: transport.String, Secret: true, Doc: "NKey seed of a user: SU…."},
			{Name: "domain", Type: transport.String, Doc: "JetStream domain, where it is not the server's own."},
			{Name: "connect_timeout", Type: transport.Duration, Default: defaultConnectTimeout.String(), Doc: "How long one attempt to connect may take."},
		},
		Blocks: []transport.Block{{
			Name: "tls",
			Doc:  "TLS towards the server. With the block, nats:// is encrypted too. ca, cert and key are PEM text: file(\"ca.pem\").",
			Schema: transport.Schema{Attributes: []transport.Attribute{
				{Name: "ca", Type: transport.String, Doc: "Certificates of the authorities to trust, instead of the system's."},
				{Name: "cert", Type: transport.String, Doc: "Client certificate, for servers that ask for one."},
				{Name: "key", Type: transport.String, Secret: true, Doc: "Private key of cert."},
				{Name: "server_name", Type: transport.String, Doc: "Name to expect in the server's certificate, instead of the URL's host."},
				{Name: "insecure_skip_verify", Type: transport.Bool, Default: "false", Doc: "Accept any certificate. For tests."},
			}},
		}},
	}
}

// parseConfig decodes and checks what can be checked without I/O.
func parseConfig(raw json.RawMessage) (config, []transport.Problem) {
	var c config
	var problems []transport.Problem
	wrong := func(message string, path ...string) {
		problems = append(problems, transport.Problem{Where: transport.InConfig, Path: path, Message: message})
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		wrong(decodeProblem(err))
		return c, problems
	}
	if c.URL == "" {
		wrong("url is missing: nats://host:4222", "url")
	} else if _, err := serverURL(c.URL); err != nil {
		wrong(err.Error(), "url")
	}
	for _, s := range c.Servers {
		if _, err := serverURL(s); err != nil {
			wrong(err.Error(), "servers")
		}
	}
	if c.ConnectTimeout < 0 {
		wrong("connect_timeout must be positive", "connect_timeout")
	}
	if c.Password != "" && c.Username == "" {
		wrong("password needs username", "password")
	}
	ways := 0
	for _, given := range []string{c.Username, c.Token, c.Credentials, c.NKey} {
		if given != "" {
			ways++
		}
	}
	if ways > 1 {
		wrong("give only one of username, token, credentials and nkey")
	}
	if c.NKey != "" {
		if _, err := nkeys.FromSeed([]byte(strings.TrimSpace(c.NKey))); err != nil {
			wrong("nkey is not the seed of a user", "nkey")
		}
	}
	if text(c.Credentials, "credentials", wrong) {
		if _, err := nkeys.ParseDecoratedJWT([]byte(c.Credentials)); err != nil {
			wrong("credentials hold no user JWT", "credentials")
		} else if _, err := nkeys.ParseDecoratedUserNKey([]byte(c.Credentials)); err != nil {
			wrong("credentials hold no user seed", "credentials")
		}
	}
	if t := c.TLS; t != nil {
		if (t.Cert == "") != (t.Key == "") {
			wrong("cert and key belong together", "tls", "cert")
		}
		if text(t.CA, "ca", wrong, "tls") && !x509.NewCertPool().AppendCertsFromPEM([]byte(t.CA)) {
			wrong("ca holds no certificate", "tls", "ca")
		}
		if cert, key := text(t.Cert, "cert", wrong, "tls"), text(t.Key, "key", wrong, "tls"); cert && key {
			if _, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key)); err != nil {
				wrong("cert and key are no pair", "tls", "cert")
			}
		}
	}
	return c, problems
}

// serverURL parses the URL of a server. The error does not repeat it: it may hold a password.
func serverURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("url cannot be parsed: nats://host:4222")
	case u.Scheme != "nats" && u.Scheme != "tls":
		return nil, fmt.Errorf("url has scheme %q: use nats:// or tls://", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("url has no host: nats://host:4222")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return nil, errors.New("url has something after the host and port: nats://host:4222")
	}
	return u, nil
}

// options are the client library's.
func (c config) options(name string) ([]nats.Option, []string, error) {
	opts := []nats.Option{nats.Name(name), nats.NoReconnect(), nats.DontRandomize(), nats.SkipHostLookup()}
	timeout := defaultConnectTimeout
	if c.ConnectTimeout > 0 {
		timeout = time.Duration(c.ConnectTimeout)
	}
	opts = append(opts, nats.Timeout(timeout))

	var servers []string
	user, password, token := c.Username, c.Password, c.Token
	for i, s := range append([]string{c.URL}, c.Servers...) {
		u, err := serverURL(s)
		if err != nil {
			return nil, nil, err
		}
		if i == 0 && u.User != nil && c.Username == "" && c.Token == "" {
			// As everywhere in NATS, a user without a password is a token.
			if p, ok := u.User.Password(); ok {
				user, password = u.User.Username(), p
			} else {
				token = u.User.Username()
			}
		}
		u.User = nil // not in any error of the library
		if u.Port() == "" {
			u.Host += ":4222"
		}
		servers = append(servers, u.Scheme+"://"+u.Host)
	}
	switch {
	case c.Credentials != "":
		opts = append(opts, nats.UserCredentialBytes([]byte(c.Credentials)))
	case c.NKey != "":
		seed := []byte(strings.TrimSpace(c.NKey))
		pair, err := nkeys.FromSeed(seed)
		if err != nil {
			return nil, nil, errors.New("nkey is not a seed")
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, nil, errors.New("nkey is not a seed")
		}
		opts = append(opts, nats.Nkey(public, pair.Sign))
	case token != "":
		opts = append(opts, nats.Token(token))
	case user != "":
		opts = append(opts, nats.UserInfo(user, password))
	}
	if c.TLS != nil {
		t, err := c.TLS.load()
		if err != nil {
			return nil, nil, err
		}
		opts = append(opts, nats.Secure(t))
	}
	return opts, servers, nil
}

func (t *tlsConfig) load() (*tls.Config, error) {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify, //nolint:gosec // the site's author asks for it by this very name
	}
	if t.CA != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, errors.New("tls.ca holds no certificate")
		}
	}
	if t.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

const pemBegin = "-----BEGIN"

// text reports whether a value is there and the text itself. A path is wrong: it would be read from wherever the program
// happens to run, and past the folder to which file() is bound. The value is not repeated, it may be a secret.
func text(value, name string, wrong func(message string, path ...string), in ...string) bool {
	if value != "" && !strings.Contains(value, pemBegin) {
		wrong(name+" has to be the text of the file, not its path: "+name+` = file("…")`, append(in, name)...)
		return false
	}
	return value != ""
}

// duration is a time.Duration that is a string in JSON.
type duration time.Duration

func (d *duration) UnmarshalJSON(raw []byte) error {
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return err
	}
	*d = duration(v)
	return nil
}

// decodeProblem says what did not fit without repeating a value, and where.
func decodeProblem(err error) string {
	var typeErr *json.UnmarshalTypeError
	if errors.As(err, &typeErr) && typeErr.Field != "" {
		return fmt.Sprintf("%s has to be a %s", typeErr.Field, typeErr.Type.Kind()) // its Value may be a secret
	}
	return "the settings cannot be read: wrong types, or a duration that is none"
}

package amqp

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/flogate/flogate/core/transport"
)

const (
	// defaultHeartbeat is 2 s because a lost broker has to be noticed within 5: see settings.silence.
	defaultHeartbeat = 2 * time.Second
	maxHeartbeat     = 60 * time.Second
	// defaultFrameSize is RabbitMQ's own, and minFrameSize that of the specification.
	defaultFrameSize = 131072
	minFrameSize     = 4096
	// defaultMaxMessage is what RabbitMQ 4 takes when it is not configured, and what the gateway carries.
	defaultMaxMessage = 16 << 20
)

func configSchema() transport.Schema {
	return transport.Schema{
		Attributes: []transport.Attribute{
			{Name: "url", Type: transport.String, Required: true, Secret: true, Doc: "amqp://user:password@host:port/vhost, or amqps:// for TLS. Percent-encode special characters; the virtual host \"/\" is the default."},
			{Name: "username", Type: transport.String, Default: "guest", Doc: "User, instead of the one in the URL."},
			{Name: "password", Type: transport.String, Secret: true, Default: "guest", Doc: "Password, instead of the one in the URL."},
			{Name: "vhost", Type: transport.String, Default: "/", Doc: "Virtual host, instead of the one in the URL."},
			{Name: "auth", Type: transport.String, Default: "plain", OneOf: []string{"plain", "external"}, Doc: "How to log in: with user and password, or by the client certificate (RabbitMQ's plugin rabbitmq_auth_mechanism_ssl)."},
			{Name: "heartbeat", Type: transport.Duration, Default: "2s", Doc: "Interval of heartbeats in whole seconds, 1s to 60s. A lost broker is noticed after two and a quarter of them."},
			{Name: "frame_size", Type: transport.Number, Default: "131072", Doc: "Largest frame in bytes, at least 4096. The broker may ask for less. Headers of a message have to fit into one frame."},
			{Name: "max_message_size", Type: transport.Number, Default: "16777216", Doc: "Largest body in bytes that the broker takes (RabbitMQ's max_message_size). A larger message is refused without sending it."},
		},
		Blocks: []transport.Block{{
			Name: "tls",
			Doc:  "TLS settings, for amqps:// only.",
			Schema: transport.Schema{Attributes: []transport.Attribute{
				{Name: "ca", Type: transport.String, Doc: "Certificates to trust instead of the system's: PEM text, as from file(\"ca.pem\")."},
				{Name: "cert", Type: transport.String, Doc: "Client certificate: PEM text, as from file(\"client.pem\")."},
				{Name: "key", Type: transport.String, Secret: true, Doc: "Key of the client certificate: PEM text, as from file(\"client-key.pem\")."},
				{Name: "server_name", Type: transport.String, Doc: "Name that the broker's certificate has to have, where it is not the URL's host."},
				{Name: "insecure_skip_verify", Type: transport.Bool, Default: "false", Doc: "Accept any certificate. For experiments only."},
			}},
		}},
	}
}

// settings is a broker block, checked.
type settings struct {
	addr       string
	user       string
	password   string
	external   bool
	vhost      string
	heartbeat  time.Duration
	frameSize  int
	maxMessage int64
	tls        *tlsSettings
}

// silence is for how long a broker may say nothing. RabbitMQ sends heartbeats at twice the negotiated rate, so that three
// of them have to be missing: 4.5 s where the heartbeat is 2 s.
func silence(heartbeat time.Duration) time.Duration { return heartbeat * 9 / 4 }

type tlsSettings struct {
	CA                 string `json:"ca"`
	Cert               string `json:"cert"`
	Key                string `json:"key"`
	ServerName         string `json:"server_name"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify"`
}

// problem is a transport.Problem whose place the caller knows.
type problem struct {
	path    []string
	message string
}

type problems []problem

func (ps *problems) add(message string, path ...string) {
	*ps = append(*ps, problem{path, message})
}

func (ps problems) err() error {
	var errs []error
	for _, p := range ps {
		if len(p.path) == 0 {
			errs = append(errs, errors.New(p.message))
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %s", strings.Join(p.path, "."), p.message))
	}
	return errors.Join(errs...)
}

// decode decodes a JSON object and refuses what is not in the schema: a mistyped option must not look as if it worked.
func decode(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(optional(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF { //nolint:errorlint // never wrapped
		return errors.New("there is more than one JSON object")
	}
	return nil
}

func parseConfig(raw json.RawMessage) (settings, problems) {
	var ps problems
	var c struct {
		URL        string       `json:"url"`
		Username   *string      `json:"username"`
		Password   *string      `json:"password"`
		VHost      *string      `json:"vhost"`
		Auth       string       `json:"auth"`
		Heartbeat  string       `json:"heartbeat"`
		FrameSize  *int         `json:"frame_size"`
		MaxMessage *int64       `json:"max_message_size"`
		TLS        *tlsSettings `json:"tls"`
	}
	s := settings{
		user: "guest", password: "guest", vhost: "/",
		heartbeat: defaultHeartbeat, frameSize: defaultFrameSize, maxMessage: defaultMaxMessage,
	}
	if err := decode(raw, &c); err != nil {
		ps.add(err.Error())
		return s, ps
	}

	secure := s.parseURL(c.URL, &ps)
	if c.Username != nil {
		s.user = *c.Username
	}
	if c.Password != nil {
		s.password = *c.Password
	}
	if c.VHost != nil {
		s.vhost = *c.VHost
	}
	if len(s.vhost) > maxShort {
		ps.add("a virtual host's name has at most 255 bytes", "vhost")
	}
	switch c.Auth {
	case "", "plain":
	case "external":
		s.external = true
	default:
		ps.add(`is "plain" or "external"`, "auth")
	}
	if c.Heartbeat != "" {
		d, err := time.ParseDuration(c.Heartbeat)
		if err != nil || d < time.Second || d > maxHeartbeat || d%time.Second != 0 {
			ps.add("has to be whole seconds from 1s to 60s", "heartbeat")
		} else {
			s.heartbeat = d
		}
	}
	if c.FrameSize != nil {
		if s.frameSize = *c.FrameSize; s.frameSize < minFrameSize {
			ps.add("has to be at least 4096", "frame_size")
		}
	}
	if c.MaxMessage != nil {
		if s.maxMessage = *c.MaxMessage; s.maxMessage < 1 {
			ps.add("has to be at least 1", "max_message_size")
		}
	}
	switch {
	case c.TLS != nil && !secure:
		ps.add("is only for an amqps:// URL", "tls")
	case secure:
		s.tls = &tlsSettings{}
		if c.TLS != nil {
			*s.tls = *c.TLS
		}
		s.tls.check(&ps)
		if (s.tls.Cert == "") != (s.tls.Key == "") {
			ps.add("cert and key have to be given together", "tls")
		}
	}
	if s.external && (s.tls == nil || s.tls.Cert == "") {
		ps.add("external needs amqps:// and a client certificate", "auth")
	}
	return s, ps
}

// parseURL fills in what the URL has and reports whether it asks for TLS. No message repeats any part of the URL: where a
// password is not percent-encoded, any part may be the password.
func (s *settings) parseURL(raw string, ps *problems) (secure bool) {
	if raw == "" {
		ps.add("is missing: amqp://host", "url")
		return false
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		ps.add("is not of the form amqp://user:password@host:port/vhost; special characters in it have to be percent-encoded", "url")
		return false
	}
	port := "5672"
	switch u.Scheme {
	case "amqp":
	case "amqps":
		secure, port = true, "5671"
	default:
		ps.add("has to begin with amqp:// or amqps://", "url")
		return false
	}
	if u.RawQuery != "" || u.Fragment != "" {
		ps.add("has a query or a fragment: settings are attributes of the broker block", "url")
	}
	host := u.Hostname()
	if host == "" {
		host = "localhost"
	}
	if u.Port() != "" {
		port = u.Port()
	}
	s.addr = net.JoinHostPort(host, port)
	if u.User != nil {
		s.user = u.User.Username()
		s.password, _ = u.User.Password()
	}
	if vhost := strings.TrimPrefix(u.Path, "/"); vhost != "" {
		s.vhost = vhost
	}
	return secure
}

// check refuses paths. Which files may be read is the site's affair: file() there keeps to the site's folder, and a plugin
// that opened files by itself would read past that.
func (t *tlsSettings) check(ps *problems) {
	for _, e := range []struct{ name, value string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}} {
		if e.value != "" && !strings.Contains(e.value, "-----BEGIN ") {
			ps.add(fmt.Sprintf(`is not PEM text: to have a file read, write %s = file("…")`, e.name), "tls", e.name)
		}
	}
}

// config returns Permanent errors: the site has to change.
func (t *tlsSettings) config(host string) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         host,
		InsecureSkipVerify: t.InsecureSkipVerify, //nolint:gosec // asked for by name
	}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	if t.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, transport.Permanentf("tls.ca: no certificate in it")
		}
	}
	if t.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key))
		if err != nil {
			return nil, transport.Permanentf("tls: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// oneOf is for the options of endpoints.
func (ps *problems) oneOf(value, name string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		ps.add("is one of "+strings.Join(allowed, ", "), name)
	}
}

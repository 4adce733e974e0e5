package mqtt

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flogate/flogate/core/transport"
)

const (
	// defaultKeepAlive makes a lost broker known after 4 s at most: the contract wants it within 5.
	defaultKeepAlive = 2 * time.Second
	minKeepAlive     = 100 * time.Millisecond
	maxKeepAlive     = time.Hour

	// defaultMaxMessage lets the largest body that every part of the gateway passes go to any topic. It is also what
	// `flogate broker` takes.
	defaultMaxMessage = 16<<20 + 128<<10
	// protocolMaxMessage is the largest packet that MQTT can express.
	protocolMaxMessage = 1<<28 - 1

	// maxString is the longest string of the protocol, in bytes.
	maxString = 65535
)

func configSchema() transport.Schema {
	return transport.Schema{
		Attributes: []transport.Attribute{
			{
				Name: "url", Type: transport.String, Required: true, Secret: true,
				Doc: "Where the broker listens: mqtt://host:1883, or mqtts://host:8883 for TLS. It may hold user and password.",
			},
			{Name: "username", Type: transport.String, Doc: "The user's name, unless the URL has it."},
			{Name: "password", Type: transport.String, Secret: true, Doc: "The user's password, unless the URL has it."},
			{
				Name: "client_id", Type: transport.String,
				Doc: "What the client ids of this broker's connections begin with, for brokers that admit clients by id. " +
					"Each subscription adds its own ending. By default they are made of the names in the site file.",
			},
			{
				Name: "keep_alive", Type: transport.Duration, Default: defaultKeepAlive.String(),
				Doc: "How often the broker is asked for a sign of life. It counts as lost after two of these without a byte.",
			},
			{
				Name: "max_message", Type: transport.Number, Default: strconv.Itoa(defaultMaxMessage),
				Doc: "The largest message in bytes: body, topic, and 64 for headers. A broker answers a message that it finds " +
					"too large by closing the connection, so set this to the broker's own limit where that is lower " +
					"(nats-server: 1048576).",
			},
		},
		Blocks: []transport.Block{{
			Name: "tls",
			Doc:  "How to trust the broker and how to be trusted by it; for mqtts:// only.",
			Schema: transport.Schema{Attributes: []transport.Attribute{
				{
					Name: "ca", Type: transport.String,
					Doc: "Certificates that the broker's certificate must lead to, in PEM. By default those of the system.",
				},
				{Name: "cert", Type: transport.String, Doc: "Our own certificate, in PEM, where the broker asks for one."},
				{Name: "key", Type: transport.String, Secret: true, Doc: "The key to cert, in PEM."},
				{Name: "server_name", Type: transport.String, Doc: "The name in the broker's certificate, where it is not the URL's host."},
				{
					Name: "insecure_skip_verify", Type: transport.Bool, Default: "false",
					Doc: "Trust any certificate. For tests only: whoever is on the way can read and change everything.",
				},
			}},
		}},
	}
}

// settings are a broker block, checked.
type settings struct {
	address    string // host:port
	username   string
	password   string
	clientID   string
	keepAlive  time.Duration
	maxMessage int
	tls        *tls.Config // nil without TLS
}

// problem is a transport.Problem without its place.
type problem struct {
	path    []string
	message string
}

// problems collects everything that is wrong.
type problems []problem

func (p *problems) add(message string, path ...string) {
	*p = append(*p, problem{path: path, message: message})
}

// err returns the problems as one error, or nil.
func (p problems) err() error {
	var errs []error
	for _, one := range p {
		if len(one.path) > 0 {
			errs = append(errs, fmt.Errorf("%s: %s", strings.Join(one.path, "."), one.message))
			continue
		}
		errs = append(errs, errors.New(one.message))
	}
	return transport.Permanent(errors.Join(errs...))
}

// decode reads a JSON object into v, which may be absent. A value of the wrong type is a problem of its own place.
func decode(data json.RawMessage, v any) problems {
	var ps problems
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	err := json.Unmarshal(data, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &wrong) && wrong.Field != "":
		ps.add("must be "+goTypeName(wrong.Type.Kind().String()), strings.Split(wrong.Field, ".")...)
	default:
		// The error's text could quote a secret.
		ps.add("is not a JSON object of settings")
	}
	return ps
}

func goTypeName(kind string) string {
	switch kind {
	case "string":
		return "a string"
	case "bool":
		return "true or false"
	case "int":
		return "a whole number"
	}
	return "an object"
}

func parseConfig(data json.RawMessage) (settings, problems) {
	var c struct {
		URL        *string `json:"url"`
		Username   *string `json:"username"`
		Password   *string `json:"password"`
		ClientID   string  `json:"client_id"`
		KeepAlive  *string `json:"keep_alive"`
		MaxMessage *int    `json:"max_message"`
		TLS        *struct {
			CA         string `json:"ca"`
			Cert       string `json:"cert"`
			Key        string `json:"key"`
			ServerName string `json:"server_name"`
			Insecure   bool   `json:"insecure_skip_verify"`
		} `json:"tls"`
	}
	ps := decode(data, &c)
	if ps != nil {
		return settings{}, ps
	}
	s := settings{clientID: c.ClientID, keepAlive: defaultKeepAlive, maxMessage: defaultMaxMessage}

	secure := false
	if c.URL == nil || *c.URL == "" {
		ps.add("is required: mqtt://host:1883", "url")
	} else if u, err := url.Parse(*c.URL); err != nil {
		// The error's text would quote the URL, or a part of it that can be a piece of the password.
		ps.add("is not a URL; special characters in user and password have to be percent-encoded", "url")
	} else {
		secure = s.setURL(u, &ps)
	}
	if c.Username != nil || c.Password != nil {
		if s.username != "" || s.password != "" {
			ps.add("is given twice: here and in the URL", "username")
		}
		if c.Username != nil {
			s.username = *c.Username
		}
		if c.Password != nil {
			s.password = *c.Password
		}
	}
	if s.password != "" && s.username == "" {
		ps.add("needs a username: MQTT 3.1.1 has no password without one", "password")
	}
	if len(s.username) > maxString || !utf8.ValidString(s.username) {
		ps.add("must be UTF-8 text of at most 65535 bytes", "username")
	}
	if len(s.password) > maxString {
		ps.add("has at most 65535 bytes", "password")
	}
	if !utf8.ValidString(c.ClientID) || strings.ContainsRune(c.ClientID, 0) || len(c.ClientID) > maxString-idHash-1 {
		ps.add("must be UTF-8 text without U+0000", "client_id")
	}
	if c.KeepAlive != nil {
		d, err := time.ParseDuration(*c.KeepAlive)
		if err != nil || d < minKeepAlive || d > maxKeepAlive {
			ps.add(fmt.Sprintf("must be a duration from %s to %s: \"2s\"", minKeepAlive, maxKeepAlive), "keep_alive")
		}
		s.keepAlive = d
	}
	if c.MaxMessage != nil {
		if *c.MaxMessage < 1 || *c.MaxMessage > protocolMaxMessage {
			ps.add(fmt.Sprintf("must be from 1 to %d bytes", protocolMaxMessage), "max_message")
		}
		s.maxMessage = *c.MaxMessage
	}

	if secure {
		host, _, _ := net.SplitHostPort(s.address)
		s.tls = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	}
	if c.TLS == nil {
		return s, ps
	}
	if !secure && c.URL != nil {
		ps.add("is for mqtts:// only, and the URL says otherwise", "tls")
	}
	if s.tls == nil {
		s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if c.TLS.ServerName != "" {
		s.tls.ServerName = c.TLS.ServerName
	}
	s.tls.InsecureSkipVerify = c.TLS.Insecure
	if c.TLS.CA != "" {
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM([]byte(c.TLS.CA)) {
			ps.add("has no certificate in PEM", "tls", "ca")
		}
	}
	switch {
	case c.TLS.Cert == "" && c.TLS.Key == "":
	case c.TLS.Cert == "":
		ps.add("is needed beside key", "tls", "cert")
	case c.TLS.Key == "":
		ps.add("is needed beside cert", "tls", "key")
	default:
		pair, err := tls.X509KeyPair([]byte(c.TLS.Cert), []byte(c.TLS.Key))
		if err != nil {
			ps.add("with key is not a pair in PEM", "tls", "cert")
		}
		s.tls.Certificates = []tls.Certificate{pair}
	}
	return s, ps
}

// setURL takes address, user and password of u and reports whether it asks for TLS.
func (s *settings) setURL(u *url.URL, ps *problems) (secure bool) {
	port := "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl":
		secure, port = true, "8883"
	default:
		ps.add("must begin with mqtt:// or mqtts://", "url")
		return false
	}
	if u.Hostname() == "" {
		ps.add("has no host: mqtt://host:1883", "url")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		ps.add("must end after the port: addresses belong to ports, settings to attributes", "url")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		ps.add("has a port that is not from 1 to 65535", "url")
	}
	s.address = net.JoinHostPort(u.Hostname(), port)
	s.username = u.User.Username()
	s.password, _ = u.User.Password()
	return secure
}

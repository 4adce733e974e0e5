package wslink

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// FlowhubURL is where Flowhub is, whose own page is noflo-ui.
const FlowhubURL = "https://app.flowhub.io"

// LiveURL returns the address of a page that opens a runtime in Flowhub or another noflo-ui: ui is that program's own
// address, runtime the runtime's ("ws://host:port"), id its UUID, which must be the one that it gives in runtime:runtime.
// secret may be empty. The program splits what it is given at "=" and "&" and knows no way around that, so no value may have
// one.
func LiveURL(ui, runtime, id, secret string) (string, error) {
	var query strings.Builder
	query.WriteString("protocol=websocket")
	for _, v := range []struct{ key, value string }{{"address", runtime}, {"id", id}, {"secret", secret}} {
		if strings.ContainsAny(v.value, "=&") {
			if v.key == "secret" {
				return "", errors.New(`a secret with "=" or "&" cannot be in a live URL`)
			}
			return "", fmt.Errorf(`%s %q: cannot be in a live URL with "=" or "&"`, v.key, v.value)
		}
		if v.value != "" {
			query.WriteString("&" + v.key + "=" + v.value)
		}
	}
	escaped := strings.ReplaceAll(url.QueryEscape(query.String()), "+", "%20") // a plus in it is %2B by now
	return strings.TrimRight(ui, "/") + "/#runtime/endpoint?" + escaped, nil
}

const style = `body{font:1rem/1.5 sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}code{overflow-wrap:anywhere}`

// policy keeps everything off the page but its own style: it may be opened by a browser that knows a secret.
func policy() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

const pageText = `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{{.Label}}</title><style>` + style + `</style></head>
<body>
<h1>{{.Label}}</h1>
<p>This is an FBP runtime. Clients reach it at <code>{{.Address}}</code>.</p>
{{if .Link}}<p><a href="{{.Link}}" rel="noreferrer">Open in Flowhub</a></p>
{{end}}{{range .Notes}}<p>{{.}}</p>
{{end}}</body>
</html>
`

type pageData struct {
	Label, Address, Link string
	Notes                []string
}

// page answers a browser that has opened the address of the FBP protocol.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	data := pageData{Label: s.o.Label, Address: s.address(r)}
	secret := r.URL.Query().Get("secret")
	link, err := LiveURL(s.o.UI, data.Address, s.o.ID, secret)
	if err != nil {
		data.Notes = append(data.Notes, "There is no link that opens it: "+err.Error()+".")
	}
	data.Link = link
	if s.o.ID == "" {
		data.Link = ""
	}
	ui, err := url.Parse(s.o.UI)
	own, err2 := url.Parse(data.Address)
	if err == nil && err2 == nil && data.Link != "" {
		if !loopback(ui.Hostname()) && !s.origins.listed[canonical(ui)] {
			data.Notes = append(data.Notes, "Pages of "+canonical(ui)+" are not among the origins that may connect here.")
		}
		if ui.Scheme == "https" && own.Scheme == "ws" && !loopback(own.Hostname()) {
			data.Notes = append(data.Notes, "A page that was loaded over https cannot open "+data.Address+
				": give the gateway a certificate, or open it on the machine itself.")
		}
	}
	var body bytes.Buffer
	if err := s.template.Execute(&body, data); err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		s.log.Error("page of the runtime failed", "error", err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", s.policy)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // a browser that went away is its own affair
	}
}

// address is how clients reach the server, as far as the one who asks shows it.
func (s *Server) address(r *http.Request) string {
	if s.o.Public != "" {
		return s.o.Public
	}
	host := r.Host
	if !validHost(host) {
		host = ""
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			host = local.String()
		}
	}
	if r.TLS != nil {
		return "wss://" + host
	}
	return "ws://" + host
}

func parsePage() *template.Template { return template.Must(template.New("page").Parse(pageText)) }

package wslink

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// origins are the web pages whose scripts may connect. Any page in the world can make a browser connect to a gateway in that
// browser's network, and nothing but the Origin header says so.
type origins struct {
	listed map[string]bool
	hosts  map[string]bool // names of the gateway itself
}

// newOrigins reads a list of origins as browsers write them, such as "https://app.flowhub.io", or "null", which is what files
// and sandboxed frames have; and of names under which the gateway is known, without ports.
func newOrigins(listed, hosts []string) (origins, error) {
	o := origins{listed: map[string]bool{}, hosts: map[string]bool{"localhost": true}}
	for _, s := range listed {
		if s == "null" {
			o.listed[s] = true
			continue
		}
		u, err := url.Parse(s)
		if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" ||
			u.RawQuery != "" || u.Fragment != "" || strings.Contains(u.Host, "*") {
			return origins{}, fmt.Errorf(`origin %q: want one like "https://app.flowhub.io"`, s)
		}
		o.listed[canonical(u)] = true
	}
	for _, h := range hosts {
		o.hosts[strings.ToLower(h)] = true
	}
	return o, nil
}

// canonical is how two spellings of one origin are the same.
func canonical(u *url.URL) string {
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		host += ":" + port
	}
	return scheme + "://" + host
}

// allow says whether a request's origin may connect: a program, which has none; a page of this machine; a page that the
// gateway's own address has served; and those that are listed.
func (o origins) allow(r *http.Request) bool {
	values := r.Header.Values("Origin")
	switch {
	case len(values) == 0:
		return true
	case len(values) > 1:
		return false
	case values[0] == "null":
		return o.listed["null"]
	}
	u, err := url.Parse(values[0])
	if err != nil || u.Host == "" {
		return false
	}
	return o.listed[canonical(u)] || isWeb(u) && (loopback(u.Hostname()) || strings.EqualFold(u.Host, r.Host) && o.own(u.Hostname()))
}

func isWeb(u *url.URL) bool {
	return strings.EqualFold(u.Scheme, "http") || strings.EqualFold(u.Scheme, "https")
}

// own says whether a host can only be the gateway's. An equal Host header is not enough: whoever owns a name can point it at
// an address in the browser's network after the page has been loaded, and then both are that name. It cannot be done to an
// address.
func (o origins) own(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || o.hosts[strings.ToLower(host)]
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// validHost says whether s is a host with or without a port, and nothing else: it goes into a page.
func validHost(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), ""
		if strings.HasPrefix(s, "[") != strings.HasSuffix(s, "]") {
			return false
		}
	}
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == "" && (addr.Is4() || strings.HasPrefix(s, "["))
	}
	return host != "" && len(host) < 254 && strings.IndexFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) < 0
}

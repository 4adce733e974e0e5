package configs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/plugins/amqp"
	"github.com/flogate/flogate/plugins/mqtt"
	"github.com/flogate/flogate/plugins/nats"
)

// builtins are options with the transports that flogate brings along, and an environment.
func builtins() config.Options {
	log := slog.New(slog.DiscardHandler)
	drivers := map[string]transport.Driver{"amqp": amqp.New(log), "mqtt": mqtt.New(log), "nats": nats.New(log)}
	env := map[string]string{
		"MQTT_HOST": "mqtt.example.org", "MQTT_USER": "house", "MQTT_PASSWORD": "from-the-environment",
		"AMQP_HOST": "amqp.example.org", "AMQP_URL": "amqp://user:from-the-environment@amqp.example.org/house",
		"HALL_TOKEN": "from-the-environment",
	}
	return config.Options{
		Driver: func(_ context.Context, _, transportType string) (transport.Driver, error) {
			if d, ok := drivers[transportType]; ok {
				return d, nil
			}
			return nil, errors.New("not built in")
		},
		Transports: func(string) []string { return []string{"amqp", "mqtt", "nats"} },
		LookupEnv:  func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
}

// site copies the folder of the examples, so that files can be put beside them, and returns where it is. The data of an
// example that somebody runs stays where it is.
func site(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "data":
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) == ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	certificates(t, filepath.Join(dir, "certs"))
	return dir
}

// load loads a site file and fails the test if there is anything to say about it.
func load(t *testing.T, file string) *config.Site {
	t.Helper()
	site, diags := config.Load(context.Background(), file, builtins())
	if len(diags.List) > 0 {
		var b strings.Builder
		_ = diags.Write(&b, false)
		t.Errorf("%s", b.String())
	}
	return site
}

func TestEveryFileInConfigsIsASite(t *testing.T) {
	dir := site(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.hcl"))
	if err != nil || len(files) < 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := load(t, file)
			if s == nil {
				return
			}
			if s.Main() == nil || len(s.Brokers) == 0 {
				t.Error("an example without a graph or without a broker")
			}
			if s.Listen.FBP != "" && !strings.HasPrefix(s.Listen.FBP, "127.0.0.1:") {
				t.Errorf("the example listens on %s: everybody could run programs", s.Listen.FBP)
			}
			for _, g := range s.Graphs {
				for _, e := range g.Graph.Edges {
					if s.Participant(e.Src.Node) == nil || s.Participant(e.Tgt.Node) == nil {
						t.Errorf("%s: %s: an end is not in the file", g.Name, e)
					}
				}
			}
		})
	}
}

func TestEveryOtherFileInConfigsIsUsedByASite(t *testing.T) {
	dir := site(t)
	used := map[string]bool{}
	files, _ := filepath.Glob(filepath.Join(dir, "*.hcl"))
	for _, file := range files {
		_, diags := config.Load(context.Background(), file, builtins())
		for _, f := range diags.Files {
			used[f] = true
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || used[path] || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		t.Errorf("nobody uses %s", path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fence is a block of code in a page, with the word after the fence.
var fence = regexp.MustCompile("(?ms)^([ \t]*)```hcl[ \t]*\n(.*?)^[ \t]*```")

// TestEveryHCLBlockInThePagesIsASite loads what the pages show. Where a block shows a part only, a comment in front of
// it, which readers of the page do not see, has what is missing: <!-- site: broker "mqtt" "house" {…} -->. A block after
// <!-- site: none --> is not loaded; it may only show what is wrong.
func TestEveryHCLBlockInThePagesIsASite(t *testing.T) {
	pages, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("../docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Errorf("page: %v", err)
			continue
		}
		for _, m := range fence.FindAllSubmatchIndex(text, -1) {
			blocks++
			line := 1 + strings.Count(string(text[:m[0]]), "\n")
			missing := missing(string(text[:m[0]]))
			if missing == "none" {
				continue
			}
			t.Run(fmt.Sprintf("%s:%d", strings.TrimPrefix(page, "../"), line), func(t *testing.T) {
				file := filepath.Join(site(t), "page.hcl")
				src := string(text[m[4]:m[5]]) + "\n" + missing + "\n"
				if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
					t.Fatal(err)
				}
				load(t, file)
			})
		}
	}
	if blocks == 0 {
		t.Error("there is no block in any page: is the pattern still right?")
	}
}

// missing returns what the comment at the end of a text has for the block after it.
func missing(before string) string {
	before = strings.TrimSpace(before)
	if !strings.HasSuffix(before, "-->") {
		return ""
	}
	comment := before[max(0, strings.LastIndex(before, "<!--")):]
	comment, ok := strings.CutPrefix(strings.TrimSuffix(comment, "-->"), "<!-- site:")
	if !ok {
		return ""
	}
	return strings.TrimSpace(comment)
}

// certificates writes a certificate that has signed itself, with its key, under the names that the examples use.
func certificates(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem":         {Type: "CERTIFICATE", Bytes: cert},
		"client.pem":     {Type: "CERTIFICATE", Bytes: cert},
		"client-key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

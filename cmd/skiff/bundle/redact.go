package bundle

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/skiff-run/skiff/cmd/skiff/up"
)

const removed = "[removed]"

// rule replaces what looks like a secret.
type rule struct {
	pattern *regexp.Regexp
	with    string
}

// rules in the order they are applied: whole values before words in them.
var rules = []rule{
	// Keys, also within JSON, where their lines end in \n. One without an end
	// reaches to the end of the text.
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`), removed},
	// PEM in base64, as kubeconfigs hold it.
	{regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]+`), removed},
	// JSON web tokens, such as those of service accounts.
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*`), removed},
	// Bootstrap and join tokens.
	{regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`), removed},
	{regexp.MustCompile(`(?i)\b(bearer|basic|negotiate)(\s+|%20)[A-Za-z0-9._~+/=-]{6,}`), "${1} " + removed},
	{regexp.MustCompile(`(?i)((?:authorization|cookie|x-auth-token|x-api-key)"?\s*[:=]\s*)[^\r\n]+`), "${1}" + removed},
	// Users and passwords of URLs.
	{regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'@]*@`), "${1}" + removed + "@"},
	// Flags and fields that are named after secrets: --token x, password=x,
	// "clientSecret": "x", secret: x, also escaped within JSON.
	{regexp.MustCompile(`(?i)(\\?["']?[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|key-data|credentials?|\bauth)\\?["']?\s*(?:[:=]\s*|\s+(?:[:=]\s*)?))(\\?"[^"\\]*\\?"|'[^']*'|[^\s,;}\]"'\\]+)`), "${1}" + removed},
	// Variables of units and of the files of their environments, except our own.
	{regexp.MustCompile(`(?m)^(\s*Environment\s*=).*$`), "${1}" + removed},
}

// redactor takes out what gives access to anything. It is safe for concurrent use.
type redactor struct{ known *strings.Replacer }

// newRedactor returns a redactor that also knows the secrets of this machine, as
// far as the caller can read them, wherever and however they appear.
func newRedactor(l up.Layout) *redactor {
	var secrets []string
	remember := func(secret string) {
		const shortest = 8 // shorter ones are words
		if secret = strings.TrimSpace(secret); len(secret) >= shortest {
			secrets = append(secrets, secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)))
		}
	}
	for _, pattern := range []string{"*.key", "*.pem"} {
		files, _ := filepath.Glob(filepath.Join(l.PKI(), pattern))
		for _, file := range files {
			data, _ := os.ReadFile(file) // what cannot be read cannot appear either
			inKey := false
			for line := range strings.Lines(string(data)) {
				switch {
				case strings.Contains(line, "PRIVATE KEY"):
					inKey = strings.Contains(line, "BEGIN")
				case inKey:
					remember(line)
				}
			}
		}
	}
	value := regexp.MustCompile(`(?m)^\s*-?\s*(?:token|password|secret|client-key-data):\s*["']?([^"'\s]+)`)
	for _, pattern := range []string{filepath.Join(filepath.Dir(l.PKI()), "*.conf"), filepath.Join(l.PKI(), "*.conf"), filepath.Join(l.PKI(), "*.yaml")} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, _ := os.ReadFile(file)
			for _, found := range value.FindAllStringSubmatch(string(data), -1) {
				remember(found[1])
			}
		}
	}
	// Long ones first: a secret may begin with another.
	sort.Slice(secrets, func(i, j int) bool { return len(secrets[i]) > len(secrets[j]) })
	var pairs []string
	for _, secret := range secrets {
		pairs = append(pairs, secret, removed)
	}
	return &redactor{known: strings.NewReplacer(pairs...)}
}

// bytes returns the text without secrets.
func (r *redactor) bytes(text []byte) []byte {
	text = []byte(r.known.Replace(string(text)))
	for _, rule := range rules {
		text = rule.pattern.ReplaceAll(text, []byte(rule.with))
	}
	return text
}

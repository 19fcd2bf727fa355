package join

import (
	"strings"
	"testing"
)

func TestWhatIsWrongWithAJoinLineIsSaidBeforeAnybodyIsAsked(t *testing.T) {
	t.Parallel()
	const token, hash = "abcdef.0123456789abcdef", "sha256:ba10f621a2ac34890c282e0523f6be6e2adce40a9bfe8145eae1c1528189182b"
	for name, tc := range map[string]struct {
		target Target
		want   []string
	}{
		"no server":              {Target{"", token, hash}, []string{"server", "https://"}},
		"another scheme":         {Target{"http://host1:6443", token, hash}, []string{"server", "https://"}},
		"a path":                 {Target{"https://host1:6443/api", token, hash}, []string{"server"}},
		"no token":               {Target{"https://host1:6443", "", hash}, []string{"--token", "skiff token create"}},
		"a token cut short":      {Target{"https://host1:6443", token[:12], hash}, []string{"--token", "id.secret"}},
		"no hash":                {Target{"https://host1:6443", token, ""}, []string{"--ca-hash", "skiff token create"}},
		"a hash cut short":       {Target{"https://host1:6443", token, hash[:40]}, []string{"--ca-hash", "64"}},
		"a hash of another kind": {Target{"https://host1:6443", token, "md5:" + hash[7:]}, []string{"--ca-hash", "sha256:"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tc.target.check()
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not mention %q", err, want)
				}
			}
		})
	}
}

func TestAServerMayBeNamedInShort(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"host1": "host1:6443", "https://host1": "host1:6443", "host1:7443": "host1:7443", "https://[fd00::1]:6443/": "[fd00::1]:6443",
		"https://192.0.2.7:6443": "192.0.2.7:6443",
	} {
		target := Target{server, "abcdef.0123456789abcdef", "SHA256:BA10F621A2AC34890C282E0523F6BE6E2ADCE40A9BFE8145EAE1C1528189182B"}
		target.CAHash = strings.ToLower(target.CAHash)
		if got, err := target.check(); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", server, got, err, want)
		}
	}
}

package environ

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

type files map[string]string

func (f files) VolumePath(name string) (string, bool) { p, ok := f[name]; return p, ok }

func TestEnvFiles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		content, want string
		wrong         bool
	}{
		"a quoted value":                        {"A='1'\nK='v w'\n", "v w", false},
		"comments, blank lines and indentation": {"# c\n\n \t\n  K='v' # why\n", "v", false},
		"nothing is expanded":                   {`K='$(X) "\n'`, `$(X) "\n`, false},
		"a value of several lines":              {"K='one\ntwo'\n", "one\ntwo", false},
		"a space before the value empties it":   {"K= 'v'\n", "", false},
		"an empty value":                        {"K=''\n", "", false},
		"a missing key":                         {"A='1'\n", "", false},
		"the first definition counts":           {"K='1'\nK='2'\n", "1", false},
		"mistakes behind the key do no harm":    {"K='v'\nnonsense\n", "v", false},
		"mistakes before the key do":            {"nonsense\nK='v'\n", "", true},
		"a space before the equals sign":        {"K ='v'\n", "", true},
		"a value without quotes":                {"K=v\n", "", true},
		"double quotes":                         {"K=\"v\"\n", "", true},
		"an open quote":                         {"K='v\n", "", true},
		"text behind the quote":                 {"K='v'w\n", "", true},
		"no name":                               {"='v'\n", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := envFileValue(strings.NewReader(test.content), "K")
			if got != test.want || (err != nil) != test.wrong {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestEnvFilesOfVolumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, content := range map[string]string{"v/env": "K='v'\n", "secret": "K='outside'\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "v/out")); err != nil {
		t.Fatal(err)
	}
	volume := filepath.Join(dir, "v")
	yes := true
	for name, test := range map[string]struct {
		ref       v1.FileKeySelector
		want, err string
	}{
		"a key":                        {v1.FileKeySelector{VolumeName: "v", Path: "env", Key: "K"}, "K=v", ""},
		"a missing key":                {v1.FileKeySelector{VolumeName: "v", Path: "env", Key: "L"}, "", `environment variable key "L" not found in file "` + volume + `/env"`},
		"an optional key":              {v1.FileKeySelector{VolumeName: "v", Path: "env", Key: "L", Optional: &yes}, "", ""},
		"a missing file":               {v1.FileKeySelector{VolumeName: "v", Path: "no", Key: "K"}, "", "couldn't parse env file"},
		"an optional file":             {v1.FileKeySelector{VolumeName: "v", Path: "no", Key: "K", Optional: &yes}, "", ""},
		"a link that leads out":        {v1.FileKeySelector{VolumeName: "v", Path: "out", Key: "K"}, "", "couldn't parse env file"},
		"a volume the pod has not got": {v1.FileKeySelector{VolumeName: "w", Path: "env", Key: "K"}, "", `cannot find the volume "w" referenced by FileKeyRef`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			container := &v1.Container{Env: []v1.EnvVar{{Name: "K", ValueFrom: &v1.EnvVarSource{FileKeyRef: &test.ref}}}}
			vars, err := Make(Input{Pod: &v1.Pod{}, Container: container, Files: files{"v": volume}})
			if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if got := ""; len(vars) > 0 {
				if got = vars[0].Name + "=" + vars[0].Value; got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			} else if test.want != "" {
				t.Errorf("got nothing, want %q", test.want)
			}
		})
	}
}

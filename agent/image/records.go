package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
)

// Verification says which present images a pod may use without proving that its
// credentials give it access: Kubernetes' imagePullCredentialsVerificationPolicy.
type Verification string

// The policies.
const (
	// NeverVerify lets every pod use every image that is present.
	NeverVerify Verification = "NeverVerify"
	// NeverVerifyPreloadedImages verifies what was pulled for pods, the default.
	NeverVerifyPreloadedImages Verification = "NeverVerifyPreloadedImages"
	// NeverVerifyAllowlistedImages verifies all but the images on a list.
	NeverVerifyAllowlistedImages Verification = "NeverVerifyAllowlistedImages"
	// AlwaysVerify verifies all.
	AlwaysVerify Verification = "AlwaysVerify"
)

// maxSources bounds how many secrets and accounts are remembered for one name of an image.
const maxSources = 100

// Records remember with whose credentials images were pulled. They are files, so
// that a new agent knows too. It is safe for concurrent use.
type Records struct {
	dir       string
	policy    Verification
	allowlist []string
	logger    *slog.Logger

	mu sync.Mutex // guards the files
	// pulling counts the pulls under way by name.
	pulling map[string]int
}

// record is the file of one image.
type record struct {
	ImageID string `json:"imageID"`
	// Sources by the repository's name as the pods write it.
	Sources map[string]*sources `json:"sources"`
	Updated time.Time           `json:"updated"`
}

// sources are who may use the image without asking its registry.
type sources struct {
	// Node: it was pulled with no credentials or the node's own, so every pod may.
	Node     bool            `json:"node,omitempty"`
	Secrets  []SecretSource  `json:"secrets,omitempty"`
	Accounts []AccountSource `json:"serviceAccounts,omitempty"`
}

// OpenRecords makes the folders. Images that an earlier agent was pulling when it
// was killed count as pulled, by unknown credentials.
func OpenRecords(dir string, policy Verification, allowlist []string, logger *slog.Logger) (*Records, error) {
	for _, sub := range []string{"pulled", "pulling"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("records of pulled images: %w", err)
		}
	}
	return &Records{dir: dir, policy: policy, allowlist: allowlist, logger: logger, pulling: map[string]int{}}, nil
}

func fileName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:]) + ".json"
}

func (r *Records) pulledFile(id string) string {
	return filepath.Join(r.dir, "pulled", fileName(id))
}

func (r *Records) pullingFile(name string) string {
	return filepath.Join(r.dir, "pulling", fileName(name))
}

// Begin notes that a pull begins: should the agent be killed before the end, the
// image is not taken for one that somebody else brought.
func (r *Records) Begin(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pulling[name] == 0 {
		if err := writeJSON(r.pullingFile(name), map[string]string{"image": name}); err != nil {
			return fmt.Errorf("failed to record image pull intent: %w", err)
		}
	}
	r.pulling[name]++
	return nil
}

// End notes the end of a pull; id is empty when it failed.
func (r *Records) End(name, id string, used *Credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != "" {
		if err := r.add(name, id, used); err != nil {
			r.logger.Error("note who pulled an image", "image", name, "error", err)
			return // the note that it was being pulled stays, and keeps it from everybody
		}
	}
	if r.pulling[name]--; r.pulling[name] <= 0 {
		delete(r.pulling, name)
		if err := os.Remove(r.pullingFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.logger.Error("note the end of a pull", "image", name, "error", err)
		}
	}
}

// add must be called with mu held.
func (r *Records) add(name, id string, used *Credential) error {
	known := r.read(id)
	if known == nil {
		known = &record{ImageID: id, Sources: map[string]*sources{}}
	}
	repository := withoutTag(name)
	s := known.Sources[repository]
	if s == nil {
		s = &sources{}
		known.Sources[repository] = s
	}
	switch {
	case s.Node:
		return nil
	case used == nil || (used.Secret == nil && used.ServiceAccount == nil):
		*s = sources{Node: true}
	case used.Secret != nil:
		if slices.Contains(s.Secrets, *used.Secret) {
			return nil
		}
		s.Secrets = slices.DeleteFunc(s.Secrets, func(o SecretSource) bool {
			return o.UID == used.Secret.UID && o.Namespace == used.Secret.Namespace && o.Name == used.Secret.Name
		})
		s.Secrets = append(s.Secrets, *used.Secret)
		s.Secrets = s.Secrets[max(0, len(s.Secrets)-maxSources):]
	default:
		if slices.Contains(s.Accounts, *used.ServiceAccount) {
			return nil
		}
		s.Accounts = append(s.Accounts, *used.ServiceAccount)
		s.Accounts = s.Accounts[max(0, len(s.Accounts)-maxSources):]
	}
	known.Updated = time.Now()
	return writeJSON(r.pulledFile(id), known)
}

// MustPull says whether a pod has to pull an image that is present, to prove that
// it may use it. credentials are asked for only when it depends on them.
func (r *Records) MustPull(name, id string, credentials func() ([]Credential, error)) (bool, error) {
	r.mu.Lock()
	known := r.read(id)
	ours := known != nil || r.pulling[name] > 0
	if !ours {
		_, err := os.Stat(r.pullingFile(name))
		ours = err == nil
	}
	r.mu.Unlock()
	if !r.verifies(name, ours) {
		return false, nil
	}
	if known == nil {
		return true, nil
	}
	s := known.Sources[withoutTag(name)]
	switch {
	case s == nil:
		return true, nil
	case s.Node:
		return false, nil
	}
	list, err := credentials()
	if err != nil {
		return true, err
	}
	for i := range list {
		if c := &list[i]; c.Secret != nil && slices.ContainsFunc(s.Secrets, func(o SecretSource) bool { return same(o, *c.Secret) }) ||
			c.ServiceAccount != nil && slices.Contains(s.Accounts, *c.ServiceAccount) {
			r.mu.Lock()
			err := r.add(name, id, c)
			r.mu.Unlock()
			return false, err
		}
	}
	return true, nil
}

// same says whether a pod's secret is one that has proved access: the very
// credential, or a new one in the same secret.
func same(known, now SecretSource) bool {
	return (known.Hash != "" && known.Hash == now.Hash) || (known.UID == now.UID && known.Namespace == now.Namespace && known.Name == now.Name)
}

func (r *Records) verifies(name string, ours bool) bool {
	switch r.policy {
	case NeverVerify:
		return false
	case NeverVerifyPreloadedImages:
		return ours
	case NeverVerifyAllowlistedImages:
		return !listed(r.allowlist, withoutTag(name))
	}
	return true
}

// listed says whether a repository is on a list of names and of beginnings that end in "/*".
func listed(list []string, repository string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if prefix, ok := strings.CutSuffix(pattern, "/*"); ok {
			return strings.HasPrefix(repository, prefix+"/")
		}
		return pattern == repository
	})
}

// Prune forgets images that are not present and were not touched since then.
func (r *Records) Prune(present map[string]bool, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, err := os.ReadDir(filepath.Join(r.dir, "pulled"))
	if err != nil {
		r.logger.Error("list the records of pulled images", "error", err)
		return
	}
	for _, e := range entries {
		file := filepath.Join(r.dir, "pulled", e.Name())
		var known record
		data, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(data, &known) == nil && (present[known.ImageID] || !known.Updated.Before(since)) {
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.logger.Error("forget a pulled image", "error", err)
		}
	}
}

// read returns what is known of an image, or nil. One whose file is damaged is
// known to have been pulled, and by nobody.
func (r *Records) read(id string) *record {
	data, err := os.ReadFile(r.pulledFile(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	known := &record{}
	if err == nil {
		err = json.Unmarshal(data, known)
	}
	if err != nil || known.ImageID != id || known.Sources == nil {
		r.logger.Error("the record of a pulled image cannot be read; pods have to prove their access anew", "image", id, "error", err)
		return &record{ImageID: id, Sources: map[string]*sources{}}
	}
	return known
}

// withoutTag is the whole name of an image's repository.
func withoutTag(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}

func writeJSON(file string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	temporary := file + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}

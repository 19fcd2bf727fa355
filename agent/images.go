package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/internal/config"
)

// images makes what pulls and removes images.
func (a *Agent) images(events event.Recorder, node *v1.ObjectReference) (*image.Puller, *image.Collector, error) {
	s := a.Settings
	keyring := &image.Keyring{Files: image.NodeFiles(s.RootDir), Logger: a.Logger}
	if s.ImageCredentialProviderConfig != "" {
		var err error
		if keyring.Providers, err = image.LoadProviders(s.ImageCredentialProviderConfig, s.ImageCredentialProviderBinDir, accounts{tokens{a.Client}}, a.Logger); err != nil {
			return nil, nil, err
		}
	}
	records, err := image.OpenRecords(filepath.Join(s.StateDir, "images"), image.Verification(s.ImagePullCredentialsVerificationPolicy), s.PreloadedImagesVerificationAllowlist, a.Logger)
	if err != nil {
		return nil, nil, err
	}
	puller := image.NewPuller(image.Options{
		Runtime: a.Runtime, Events: events, Now: time.Now, Keyring: keyring, Records: records,
		Parallel: s.ParallelPulls(), PerSecond: s.RegistryPullQPS, Burst: s.RegistryBurst,
	})
	return puller, image.NewCollector(a.Runtime, imagePolicy(s), records, events, node, a.Logger), nil
}

// imagePolicy says when images nobody uses are removed.
func imagePolicy(s *config.Agent) image.Policy {
	return image.Policy{
		High: s.ImageGCHighThresholdPercent, Low: s.ImageGCLowThresholdPercent,
		MinimumAge: config.Duration(s.ImageMinimumGCAge), MaximumAge: config.Duration(s.ImageMaximumGCAge),
	}
}

// accounts tells of service accounts and makes their tokens.
type accounts struct{ tokens }

func (a accounts) ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error) {
	return a.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
}

// runtimeClasses finds the handler of a pod's runtime class. Classes are few and
// seldom used, so they are read when one is; what was read last serves while the
// API does not answer. It is safe for concurrent use.
type runtimeClasses struct {
	client kubernetes.Interface

	mu    sync.Mutex // guards known, handlers by class
	known map[string]string
}

// Handler returns the name of the handler that runs a pod, empty for the default one.
func (r *runtimeClasses) Handler(ctx context.Context, pod *v1.Pod) (string, error) {
	name := ptr.Deref(pod.Spec.RuntimeClassName, "")
	if name == "" {
		return "", nil
	}
	class, err := r.client.NodeV1().RuntimeClasses().Get(ctx, name, metav1.GetOptions{})
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		if r.known == nil {
			r.known = map[string]string{}
		}
		r.known[name] = class.Handler
		return class.Handler, nil
	case apierrors.IsNotFound(err):
		delete(r.known, name)
		return "", fmt.Errorf("failed to lookup runtimeclass %q: %w", name, err)
	}
	if handler, ok := r.known[name]; ok {
		return handler, nil
	}
	return "", fmt.Errorf("failed to lookup runtimeclass %q: %w", name, err)
}

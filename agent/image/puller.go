package image

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/event"
)

const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
	// visibleError is how long ErrImagePull is shown before the back-off is.
	visibleError = 2 * time.Second
	// parallelPulls bounds the pulls of one node.
	parallelPulls = 4
)

// Runtime is what pulling needs of the runtime.
type Runtime interface {
	ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error)
	PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, podSandboxConfig *runtimeapi.PodSandboxConfig) (string, error)
}

// Image is an image that is on the node.
type Image struct {
	// Ref is what containers are made from.
	Ref string
	// User is the numeric user the image wants to run as, Username a named one.
	User     *int64
	Username string
}

// Failure says why a container has no image.
type Failure struct {
	Reason, Message string
	RetryAt         time.Time
}

func (f *Failure) Error() string { return f.Reason + ": " + f.Message }

// Puller makes sure images are present.
type Puller struct {
	runtime Runtime
	events  event.Recorder
	now     func() time.Time
	slots   chan struct{}

	// mu guards backoff, whose key is pod UID and image.
	mu      sync.Mutex
	backoff map[string]*backoff
}

type backoff struct {
	delay time.Duration
	until time.Time
	cause string
}

// NewPuller returns a puller.
func NewPuller(runtime Runtime, events event.Recorder, now func() time.Time) *Puller {
	return &Puller{runtime: runtime, events: events, now: now, slots: make(chan struct{}, parallelPulls), backoff: map[string]*backoff{}}
}

// Ensure makes the container's image present as its pull policy demands. The
// error is a *Failure unless ctx ended.
func (p *Puller) Ensure(ctx context.Context, pod *v1.Pod, container *v1.Container, secrets []*v1.Secret, sandbox *runtimeapi.PodSandboxConfig) (Image, error) {
	ref := event.Container(pod, container.Name)
	name, err := withTag(container.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", container.Image, err)
		p.events.Eventf(ref, v1.EventTypeWarning, event.InspectFailed, "%s", message)
		return Image{}, &Failure{Reason: "InvalidImageName", Message: message, RetryAt: p.now().Add(firstBackoff)}
	}
	spec := &runtimeapi.ImageSpec{Image: name, UserSpecifiedImage: container.Image, Annotations: pod.Annotations}
	if container.ImagePullPolicy != v1.PullAlways {
		image, found, err := p.inspect(ctx, spec)
		if err != nil {
			message := fmt.Sprintf("Failed to inspect image %q: %v", container.Image, err)
			p.events.Eventf(ref, v1.EventTypeWarning, event.InspectFailed, "%s", message)
			return Image{}, &Failure{Reason: "ImageInspectError", Message: message, RetryAt: p.now().Add(firstBackoff)}
		}
		if found {
			p.events.Eventf(ref, v1.EventTypeNormal, event.Pulled, "Container image %q already present on machine and can be accessed by the pod", container.Image)
			return image, nil
		}
		if container.ImagePullPolicy == v1.PullNever {
			message := fmt.Sprintf("Container image %q is not present with pull policy of Never", container.Image)
			p.events.Eventf(ref, v1.EventTypeWarning, event.ErrImageNeverPull, "%s", message)
			return Image{}, &Failure{Reason: "ErrImageNeverPull", Message: message, RetryAt: p.now().Add(firstBackoff)}
		}
	}
	key := string(pod.UID) + "_" + container.Image
	if failure := p.held(key, container.Image); failure != nil {
		p.events.Eventf(ref, v1.EventTypeNormal, event.BackOff, "Back-off pulling image %q", container.Image)
		return Image{}, failure
	}
	return p.pull(ctx, ref, key, spec, container.Image, secrets, sandbox)
}

func (p *Puller) pull(ctx context.Context, ref *v1.ObjectReference, key string, spec *runtimeapi.ImageSpec, name string, secrets []*v1.Secret, sandbox *runtimeapi.PodSandboxConfig) (Image, error) {
	p.events.Eventf(ref, v1.EventTypeNormal, event.Pulling, "Pulling image %q", name)
	asked := p.now()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return Image{}, ctx.Err()
	}
	began := p.now()
	var err error
	for _, auth := range credentials(secrets, spec.Image) {
		if _, err = p.runtime.PullImage(ctx, spec, auth, sandbox); err == nil {
			break
		}
	}
	if ctx.Err() != nil {
		return Image{}, ctx.Err()
	}
	if err != nil {
		p.events.Eventf(ref, v1.EventTypeWarning, event.Failed, "Failed to pull image %q: %v", name, err)
		p.events.Eventf(ref, v1.EventTypeWarning, event.Failed, "Error: ErrImagePull")
		return Image{}, p.failed(key, err)
	}
	p.forget(key)
	image, found, err := p.inspect(ctx, spec)
	if err != nil || !found {
		return Image{}, p.failed(key, fmt.Errorf("image %q is not there after it was pulled: %w", name, err))
	}
	size := int64(0)
	if response, err := p.runtime.ImageStatus(ctx, spec, false); err == nil {
		size = int64(response.GetImage().GetSize())
	}
	p.events.Eventf(ref, v1.EventTypeNormal, event.Pulled, "Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		name, p.now().Sub(began).Truncate(time.Millisecond), p.now().Sub(asked).Truncate(time.Millisecond), size)
	return image, nil
}

func (p *Puller) inspect(ctx context.Context, spec *runtimeapi.ImageSpec) (Image, bool, error) {
	response, err := p.runtime.ImageStatus(ctx, spec, false)
	if err != nil {
		return Image{}, false, err
	}
	found := response.GetImage()
	if found.GetId() == "" {
		return Image{}, false, nil
	}
	image := Image{Ref: found.GetId(), Username: found.GetUsername()}
	if found.GetUid() != nil {
		uid := found.GetUid().GetValue()
		image.User = &uid
	} else if image.Username == "" {
		// Without any user the image runs as root.
		root := int64(0)
		image.User = &root
	}
	return image, true, nil
}

// held returns the failure to show while a pull is backed off.
func (p *Puller) held(key, name string) *Failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backoff[key]
	if b == nil || !p.now().Before(b.until) {
		return nil
	}
	return &Failure{Reason: "ImagePullBackOff", Message: fmt.Sprintf("Back-off pulling image %q: %s", name, b.cause), RetryAt: b.until}
}

func (p *Puller) failed(key string, err error) *Failure {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backoff[key]
	switch {
	case b == nil || p.now().Sub(b.until) > maxBackoff:
		b = &backoff{delay: firstBackoff}
		p.backoff[key] = b
	default:
		b.delay = min(2*b.delay, maxBackoff)
	}
	b.until = p.now().Add(b.delay)
	b.cause = "ErrImagePull: " + err.Error()
	return &Failure{Reason: "ErrImagePull", Message: err.Error(), RetryAt: p.now().Add(visibleError)}
}

func (p *Puller) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.backoff, key)
}

// Forget drops what is remembered about a pod.
func (p *Puller) Forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.backoff {
		if strings.HasPrefix(key, uid+"_") {
			delete(p.backoff, key)
		}
	}
}

// withTag adds :latest to a name without tag and digest. The rest of the name
// stays as the user wrote it.
func withTag(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image reference %q: %w", image, err)
	}
	if reference.IsNameOnly(named) {
		return image + ":latest", nil
	}
	return image, nil
}

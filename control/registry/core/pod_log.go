package core

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	genericrest "k8s.io/apiserver/pkg/registry/generic/rest"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// podLog serves a container's log from the agent of the pod's node.
type podLog struct{ streams *podStreams }

var (
	_ rest.GetterWithOptions = (*podLog)(nil)
	_ rest.StorageMetadata   = (*podLog)(nil)
)

// New implements rest.Storage.
func (l *podLog) New() runtime.Object { return &corev1.Pod{} }

// Destroy implements rest.Storage.
func (l *podLog) Destroy() {}

// ProducesMIMETypes implements rest.StorageMetadata.
func (l *podLog) ProducesMIMETypes(string) []string { return []string{"text/plain"} }

// ProducesObject implements rest.StorageMetadata.
func (l *podLog) ProducesObject(string) any { return "" }

// NewGetOptions implements rest.GetterWithOptions.
func (l *podLog) NewGetOptions() (runtime.Object, bool, string) {
	return &corev1.PodLogOptions{}, false, ""
}

// Get implements rest.GetterWithOptions.
func (l *podLog) Get(ctx context.Context, name string, object runtime.Object) (runtime.Object, error) {
	options, ok := object.(*corev1.PodLogOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %T", object)
	}
	if errs := podspec.ValidateLogOptions(options); len(errs) > 0 {
		return nil, errors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), name, errs)
	}
	pod, err := l.streams.pods.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	container, err := chooseContainer(pod, options.Container)
	if err != nil {
		return nil, err
	}
	streamer := &genericrest.LocationStreamer{
		ContentType:     "text/plain",
		Flush:           options.Follow,
		ResponseChecker: genericrest.NewGenericHttpResponseChecker(corev1.Resource("pods/log"), name),
		RedirectChecker: genericrest.PreventRedirects,
	}
	if pod.Spec.NodeName == "" {
		return streamer, nil // nothing ran yet: an empty log
	}
	streamer.Location, _, err = l.streams.location(ctx, pod, logParameters(options), "containerLogs", pod.Namespace, pod.Name, container)
	if err != nil {
		return nil, err
	}
	streamer.Transport = l.streams.agents.transport
	if options.InsecureSkipTLSVerifyBackend {
		if l.streams.agents.unverified == nil {
			return nil, errors.NewBadRequest("insecureSkipTLSVerifyBackend is not available on this server")
		}
		streamer.Transport = l.streams.agents.unverified
	}
	return streamer, nil
}

func logParameters(options *corev1.PodLogOptions) url.Values {
	parameters := url.Values{}
	for name, set := range map[string]bool{
		"follow": options.Follow, "previous": options.Previous, "timestamps": options.Timestamps,
	} {
		if set {
			parameters.Set(name, "true")
		}
	}
	for name, value := range map[string]*int64{
		"sinceSeconds": options.SinceSeconds, "tailLines": options.TailLines, "limitBytes": options.LimitBytes,
	} {
		if value != nil {
			parameters.Set(name, strconv.FormatInt(*value, 10))
		}
	}
	if options.SinceTime != nil {
		parameters.Set("sinceTime", options.SinceTime.Format(time.RFC3339))
	}
	return parameters
}

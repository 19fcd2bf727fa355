// Package scheme registers the API's types.
//
// The v1 types of k8s.io/api are both what travels and what the server works
// with: each group's v1 types are registered a second time as its internal
// version, so that the scheme's "conversion" between the two only relabels.
// The few kinds with two served versions or a type of another group inside get
// explicit conversions.
package scheme

import (
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Groups are the served groups' versions: a new group is one line here and its
// folder in control/registry.
var groups = []struct {
	version schema.GroupVersion
	add     func(*runtime.Scheme) error
}{
	{corev1.SchemeGroupVersion, corev1.AddToScheme},
	{appsv1.SchemeGroupVersion, appsv1.AddToScheme},
	{authenticationv1.SchemeGroupVersion, authenticationv1.AddToScheme},
	{authorizationv1.SchemeGroupVersion, authorizationv1.AddToScheme},
	{autoscalingv1.SchemeGroupVersion, autoscalingv1.AddToScheme},
	{certificatesv1.SchemeGroupVersion, certificatesv1.AddToScheme},
	{coordinationv1.SchemeGroupVersion, coordinationv1.AddToScheme},
	{discoveryv1.SchemeGroupVersion, discoveryv1.AddToScheme},
	{metricsv1beta1.SchemeGroupVersion, metricsv1beta1.AddToScheme},
	{nodev1.SchemeGroupVersion, nodev1.AddToScheme},
	{networkingv1.SchemeGroupVersion, networkingv1.AddToScheme},
	{policyv1.SchemeGroupVersion, policyv1.AddToScheme},
	{rbacv1.SchemeGroupVersion, rbacv1.AddToScheme},
	{schedulingv1.SchemeGroupVersion, schedulingv1.AddToScheme},
	{storagev1.SchemeGroupVersion, storagev1.AddToScheme},
}

// Scheme is the API's types with the codecs on them.
type Scheme struct {
	*runtime.Scheme
	Codecs         serializer.CodecFactory
	ParameterCodec runtime.ParameterCodec
}

// New returns a scheme with every type of the API. Defaults are added by the
// resources of control/registry.
func New() (*Scheme, error) {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	for _, group := range groups {
		if err := group.add(s); err != nil {
			return nil, fmt.Errorf("register %s: %w", group.version, err)
		}
		addInternal(s, group.version)
		if err := s.SetVersionPriority(group.version); err != nil {
			return nil, fmt.Errorf("register %s: %w", group.version, err)
		}
	}
	for _, add := range []func(*runtime.Scheme) error{addEvents, addFieldLabels, admissionv1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	s.AddUnversionedTypes(schema.GroupVersion{Version: "v1"},
		&metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return &Scheme{Scheme: s, Codecs: serializer.NewCodecFactory(s), ParameterCodec: runtime.NewParameterCodec(s)}, nil
}

// addInternal registers the types of a version once more as the group's
// internal version.
func addInternal(s *runtime.Scheme, version schema.GroupVersion) {
	internal := schema.GroupVersion{Group: version.Group, Version: runtime.APIVersionInternal}
	for kind, goType := range s.KnownTypes(version) {
		// The options and watch events of meta/v1 are registered in every version by itself.
		if goType.PkgPath() == "k8s.io/apimachinery/pkg/apis/meta/v1" {
			continue
		}
		object, err := s.New(version.WithKind(kind))
		if err != nil {
			continue
		}
		s.AddKnownTypeWithName(internal.WithKind(kind), object)
	}
}

// addEvents registers events.k8s.io. Its events and those of the core group
// are the same objects: the server works with the core type.
func addEvents(s *runtime.Scheme) error {
	if err := eventsv1.AddToScheme(s); err != nil {
		return fmt.Errorf("register %s: %w", eventsv1.SchemeGroupVersion, err)
	}
	s.AddKnownTypes(schema.GroupVersion{Group: eventsv1.GroupName, Version: runtime.APIVersionInternal}, &corev1.Event{}, &corev1.EventList{})
	if err := s.SetVersionPriority(eventsv1.SchemeGroupVersion); err != nil {
		return fmt.Errorf("register %s: %w", eventsv1.SchemeGroupVersion, err)
	}
	return addEventConversions(s)
}

// External returns a scheme of the served versions alone, by which published
// documents name types.
func (*Scheme) External() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, group := range groups {
		if err := group.add(s); err != nil {
			return nil, fmt.Errorf("register %s: %w", group.version, err)
		}
	}
	if err := eventsv1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("register %s: %w", eventsv1.SchemeGroupVersion, err)
	}
	return s, nil
}

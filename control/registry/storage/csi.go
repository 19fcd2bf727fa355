package storage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// Bounds of what drivers and nodes say.
const (
	maxNodeID          = 192
	minTokenLife       = 10 * 60
	maxTokenLife       = 1 << 32
	minAllocatablePace = 10
)

// csiDriverKind serves CSIDrivers.
func csiDriverKind() registry.Kind[*storagev1.CSIDriver] {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return registry.Kind[*storagev1.CSIDriver]{
		Version: storagev1.SchemeGroupVersion, Plural: "csidrivers", Singular: "csidriver", ClusterScoped: true,
		New:                   func() *storagev1.CSIDriver { return &storagev1.CSIDriver{} },
		NewList:               func() runtime.Object { return &storagev1.CSIDriverList{} },
		Default:               defaultDriver,
		ConditionalUpdateOnly: true,
		ValidateName:          apivalidation.NameIsDNSSubdomain,
		PrepareForCreate: func(_ context.Context, d *storagev1.CSIDriver) {
			d.Spec.PreventPodSchedulingIfMissing = nil
		},
		PrepareForUpdate: func(_ context.Context, d, old *storagev1.CSIDriver) {
			d.Spec.PreventPodSchedulingIfMissing = nil
			if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) {
				d.Generation = old.Generation + 1
			}
		},
		Validate: func(_ context.Context, d *storagev1.CSIDriver) field.ErrorList {
			return validateDriver(&d.Spec, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, d, old *storagev1.CSIDriver) field.ErrorList {
			spec := field.NewPath("spec")
			errs := apivalidation.ValidateImmutableField(d.Spec.AttachRequired, old.Spec.AttachRequired, spec.Child("attachedRequired"))
			return append(errs, apivalidation.ValidateImmutableField(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, spec.Child("volumeLifecycleModes"))...)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("AttachRequired", "boolean", doc["attachRequired"]),
			registry.Column("PodInfoOnMount", "boolean", doc["podInfoOnMount"]),
			registry.Column("StorageCapacity", "boolean", doc["storageCapacity"]),
			registry.Column("TokenRequests", "string", doc["tokenRequests"]),
			registry.Column("RequiresRepublish", "boolean", doc["requiresRepublish"]),
			registry.Column("Modes", "string", doc["volumeLifecycleModes"]),
			registry.AgeColumn(),
		},
		Row: driverRow,
	}
}

func defaultDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	s.AttachRequired = ptr.To(ptr.Deref(s.AttachRequired, true))
	s.PodInfoOnMount = ptr.To(ptr.Deref(s.PodInfoOnMount, false))
	s.StorageCapacity = ptr.To(ptr.Deref(s.StorageCapacity, false))
	s.FSGroupPolicy = ptr.To(ptr.Deref(s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy))
	s.RequiresRepublish = ptr.To(ptr.Deref(s.RequiresRepublish, false))
	s.SELinuxMount = ptr.To(ptr.Deref(s.SELinuxMount, false))
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

func validateDriver(s *storagev1.CSIDriverSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policies := []storagev1.FSGroupPolicy{storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy}; s.FSGroupPolicy != nil &&
		!slices.Contains(policies, *s.FSGroupPolicy) {
		errs = append(errs, field.NotSupported(path.Child("fsGroupPolicy"), *s.FSGroupPolicy, policies))
	}
	errs = append(errs, validateTokens(s.TokenRequests, path.Child("tokenRequests"))...)
	lifecycles := []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}
	for _, mode := range s.VolumeLifecycleModes {
		if !slices.Contains(lifecycles, mode) {
			errs = append(errs, field.NotSupported(path.Child("volumeLifecycleModes"), mode, lifecycles))
		}
	}
	if period := s.NodeAllocatableUpdatePeriodSeconds; period != nil && *period < minAllocatablePace {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *period, "must be greater than or equal to 10 seconds"))
	}
	if s.ServiceAccountTokenInSecrets != nil && len(s.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(path.Child("serviceAccountTokenInSecrets"), *s.ServiceAccountTokenInSecrets,
			"serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

func validateTokens(requests []storagev1.TokenRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, request := range requests {
		at := path.Index(i)
		if seen[request.Audience] {
			errs = append(errs, field.Duplicate(at.Child("audience"), request.Audience))
			continue
		}
		seen[request.Audience] = true
		switch life := request.ExpirationSeconds; {
		case life == nil:
		case *life < minTokenLife:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *life, "may not specify a duration less than 10 minutes"))
		case *life > maxTokenLife:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *life, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}

func driverRow(d *storagev1.CSIDriver) []any {
	tokens, lifecycles := "<unset>", "<none>"
	if d.Spec.TokenRequests != nil {
		var audiences []string
		for _, request := range d.Spec.TokenRequests {
			audiences = append(audiences, request.Audience)
		}
		tokens = strings.Join(audiences, ",")
	}
	if len(d.Spec.VolumeLifecycleModes) > 0 {
		var names []string
		for _, mode := range d.Spec.VolumeLifecycleModes {
			names = append(names, string(mode))
		}
		lifecycles = strings.Join(names, ",")
	}
	return []any{
		d.Name, ptr.Deref(d.Spec.AttachRequired, true), ptr.Deref(d.Spec.PodInfoOnMount, false), ptr.Deref(d.Spec.StorageCapacity, false),
		tokens, ptr.Deref(d.Spec.RequiresRepublish, false), lifecycles, registry.Age(d.CreationTimestamp),
	}
}

// csiNodeKind serves CSINodes: what each node's drivers said of themselves.
func csiNodeKind() registry.Kind[*storagev1.CSINode] {
	return registry.Kind[*storagev1.CSINode]{
		Version: storagev1.SchemeGroupVersion, Plural: "csinodes", Singular: "csinode", ClusterScoped: true,
		New:                   func() *storagev1.CSINode { return &storagev1.CSINode{} },
		NewList:               func() runtime.Object { return &storagev1.CSINodeList{} },
		ConditionalUpdateOnly: true,
		ValidateName:          apivalidation.NameIsDNSSubdomain,
		// The health of storage is an alpha feature.
		PrepareForCreate: func(_ context.Context, n *storagev1.CSINode) { n.Status = storagev1.CSINodeStatus{} },
		PrepareForUpdate: func(_ context.Context, n, old *storagev1.CSINode) { n.Status = old.Status },
		Validate: func(_ context.Context, n *storagev1.CSINode) field.ErrorList {
			return validateNodeDrivers(n.Spec.Drivers, field.NewPath("spec", "drivers"))
		},
		ValidateUpdate: func(_ context.Context, n, old *storagev1.CSINode) field.ErrorList {
			return validateNodeDriversKept(n, old)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Drivers", "integer", "Drivers indicates the number of CSI drivers registered on the node"),
			registry.AgeColumn(),
		},
		Row: func(n *storagev1.CSINode) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), registry.Age(n.CreationTimestamp)}
		},
	}
}

func validateNodeDrivers(drivers []storagev1.CSINodeDriver, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i := range drivers {
		d, at := &drivers[i], path.Index(i)
		errs = append(errs, podspec.ValidateCSIDriverName(d.Name, at.Child("name"))...)
		if d.NodeID == "" {
			errs = append(errs, field.Required(at.Child("nodeID"), ""))
		}
		if len(d.NodeID) > maxNodeID {
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID)))
		}
		if d.Allocatable != nil && d.Allocatable.Count != nil && *d.Allocatable.Count < 0 {
			errs = append(errs, field.Invalid(at.Child("allocatable", "count"), int64(*d.Allocatable.Count), apivalidation.IsNegativeErrorMsg))
		}
		if names[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		names[d.Name] = true
		keys := map[string]bool{}
		for _, key := range d.TopologyKeys {
			if key == "" {
				errs = append(errs, field.Required(at, key))
			}
			if keys[key] {
				errs = append(errs, field.Duplicate(at, key))
			}
			keys[key] = true
			for _, message := range validation.IsQualifiedName(key) {
				errs = append(errs, field.Invalid(at, key, message))
			}
		}
	}
	return errs
}

// validateNodeDriversKept: a driver may come and go; but for its limit it may not change.
func validateNodeDriversKept(n, old *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	for _, before := range old.Spec.Drivers {
		for _, now := range n.Spec.Drivers {
			if before.Name == now.Name {
				before.Allocatable, now.Allocatable = nil, nil
				errs = append(errs, apivalidation.ValidateImmutableField(now, before, field.NewPath("spec", "drivers"))...)
			}
		}
	}
	return errs
}

// csiStorageCapacityKind serves CSIStorageCapacities.
func csiStorageCapacityKind() registry.Kind[*storagev1.CSIStorageCapacity] {
	doc := storagev1.CSIStorageCapacity{}.SwaggerDoc()
	return registry.Kind[*storagev1.CSIStorageCapacity]{
		Version: storagev1.SchemeGroupVersion, Plural: "csistoragecapacities", Singular: "csistoragecapacity",
		New:                   func() *storagev1.CSIStorageCapacity { return &storagev1.CSIStorageCapacity{} },
		NewList:               func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },
		ConditionalUpdateOnly: true,
		ValidateName:          apivalidation.NameIsDNSSubdomain,
		Validate: func(_ context.Context, c *storagev1.CSIStorageCapacity) field.ErrorList {
			errs := metavalidation.ValidateLabelSelector(c.NodeTopology, metavalidation.LabelSelectorValidationOptions{}, field.NewPath("nodeTopology"))
			for _, message := range apivalidation.NameIsDNSSubdomain(c.StorageClassName, false) {
				errs = append(errs, field.Invalid(field.NewPath("storageClassName"), c.StorageClassName, message))
			}
			if c.Capacity != nil && c.Capacity.Sign() < 0 {
				errs = append(errs, field.Invalid(field.NewPath("capacity"), c.Capacity.String(), apivalidation.IsNegativeErrorMsg))
			}
			return errs
		},
		ValidateUpdate: func(_ context.Context, c, old *storagev1.CSIStorageCapacity) field.ErrorList {
			var errs field.ErrorList
			if !apiequality.Semantic.DeepEqual(c.NodeTopology, old.NodeTopology) {
				errs = append(errs, field.Invalid(field.NewPath("nodeTopology"), c.NodeTopology, "field is immutable"))
			}
			if c.StorageClassName != old.StorageClassName {
				errs = append(errs, field.Invalid(field.NewPath("storageClassName"), c.StorageClassName, "field is immutable"))
			}
			return errs
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(), registry.Column("StorageClassName", "string", doc["storageClassName"]), registry.Column("Capacity", "string", doc["capacity"]),
		},
		Row: func(c *storagev1.CSIStorageCapacity) []any {
			capacity := "<unset>"
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		},
	}
}

package apps

import (
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

func validateDeployment(d *appsv1.Deployment) field.ErrorList {
	errs := podspec.ValidateObjectMeta(&d.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateDeploymentSpec(&d.Spec, field.NewPath("spec"))...)
}

// validateDeploymentUpdate: a selector that changed would leave the pods of the old one to nobody.
func validateDeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	errs := podspec.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateDeploymentSpec(&d.Spec, field.NewPath("spec"))...)
	return append(errs, apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
}

func validateDeploymentSpec(spec *appsv1.DeploymentSpec, path *field.Path) field.ErrorList {
	errs := nonNegative(int64(replicas(spec.Replicas)), path.Child("replicas"))
	errs = append(errs, validateSelectorAndTemplate(spec.Selector, &spec.Template, path)...)
	errs = append(errs, validateDeploymentStrategy(&spec.Strategy, path.Child("strategy"))...)
	errs = append(errs, nonNegative(int64(spec.MinReadySeconds), path.Child("minReadySeconds"))...)
	if limit := spec.RevisionHistoryLimit; limit != nil {
		errs = append(errs, nonNegative(int64(*limit), path.Child("revisionHistoryLimit"))...)
	}
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil {
		at := path.Child("progressDeadlineSeconds")
		errs = append(errs, nonNegative(int64(*deadline), at)...)
		if *deadline <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(at, deadline, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateDeploymentStrategy(strategy *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	at := path.Child("rollingUpdate")
	switch strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if strategy.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(at, "may not be specified when strategy `type` is 'Recreate'")}
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if strategy.RollingUpdate == nil {
			return field.ErrorList{field.Required(at, "this should be defaulted and never be nil")}
		}
		return validateRollingUpdate(strategy.RollingUpdate, at)
	default:
		return field.ErrorList{field.NotSupported(path, strategy,
			[]appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	}
	return nil
}

// validateRollingUpdate: pods must be allowed to go or to come, or nothing moves.
func validateRollingUpdate(update *appsv1.RollingUpdateDeployment, path *field.Path) field.ErrorList {
	unavailable, surge := ptr.Deref(update.MaxUnavailable, intstr.IntOrString{}), ptr.Deref(update.MaxSurge, intstr.IntOrString{})
	errs := validateShare(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, validateShare(surge, path.Child("maxSurge"))...)
	amount, isPercent := shareOf(unavailable)
	if surging, _ := shareOf(surge); amount == 0 && surging == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	if isPercent && amount > 100 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "must not be greater than 100%"))
	}
	return errs
}

// validateShare checks a number of pods or a percentage of them.
func validateShare(share intstr.IntOrString, path *field.Path) (errs field.ErrorList) {
	if share.Type == intstr.Int {
		return nonNegative(int64(share.IntValue()), path)
	}
	for _, message := range validation.IsValidPercent(share.StrVal) {
		errs = append(errs, field.Invalid(path, share, message))
	}
	return errs
}

// shareOf reads a share; what is neither number nor percentage counts as the number it starts like.
func shareOf(share intstr.IntOrString) (amount int, isPercent bool) {
	if share.Type == intstr.String && len(validation.IsValidPercent(share.StrVal)) == 0 {
		amount, err := strconv.Atoi(strings.TrimSuffix(share.StrVal, "%"))
		return amount, err == nil
	}
	return share.IntValue(), false
}

// validateDeploymentStatusUpdate checks what the deployment controller counted.
func validateDeploymentStatusUpdate(d, old *appsv1.Deployment) field.ErrorList {
	path, status := field.NewPath("status"), &d.Status
	updated := count{"updatedReplicas", int64(status.UpdatedReplicas)}
	ready := count{"readyReplicas", int64(status.ReadyReplicas)}
	available := count{"availableReplicas", int64(status.AvailableReplicas)}
	errs := podspec.ValidateObjectMetaUpdate(&d.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, countsNonNegative(path,
		count{"observedGeneration", status.ObservedGeneration}, count{"replicas", int64(status.Replicas)}, updated, ready, available,
		count{"unavailableReplicas", int64(status.UnavailableReplicas)},
		count{"terminatingReplicas", int64(ptr.Deref(status.TerminatingReplicas, 0))},
		count{"collisionCount", int64(ptr.Deref(status.CollisionCount, 0))})...)
	errs = append(errs, notMoreThanReplicas(path, status.Replicas, updated, ready, available)...)
	if status.AvailableReplicas > status.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), status.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	// A smaller count would make a ReplicaSet's name that is taken.
	if was := old.Status.CollisionCount; was != nil && (status.CollisionCount == nil || *status.CollisionCount < *was) {
		errs = append(errs, field.Invalid(path.Child("collisionCount"), ptr.Deref(status.CollisionCount, 0), "cannot be decremented"))
	}
	return errs
}

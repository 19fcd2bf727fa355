package core

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// Bounds of an event's texts, in bytes.
const (
	maxEventWord = 128
	maxEventNote = 1024
)

// strictEvents says whether an event comes through events.k8s.io, which checks
// what the core group, where clients have always written anything, lets pass.
func strictEvents(ctx context.Context) bool {
	info, found := request.RequestInfoFrom(ctx)
	return found && info.APIGroup == eventsv1.GroupName
}

func validateEvent(ctx context.Context, e *corev1.Event) field.ErrorList {
	errs := validateAnyEvent(ctx, e)
	if !strictEvents(ctx) {
		return errs
	}
	errs = append(errs, podspec.ValidateObjectMeta(&e.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)...)
	errs = append(errs, validateEventSeries(e)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	for _, old := range []struct {
		name string
		set  bool
	}{
		{"firstTimestamp", !e.FirstTimestamp.IsZero()},
		{"lastTimestamp", !e.LastTimestamp.IsZero()},
		{"count", e.Count != 0},
		{"source", e.Source != corev1.EventSource{}},
	} {
		if old.set {
			errs = append(errs, field.Invalid(field.NewPath(old.name), "", "needs to be unset"))
		}
	}
	return errs
}

func validateEventUpdate(ctx context.Context, e, old *corev1.Event) field.ErrorList {
	errs := validateAnyEvent(ctx, e)
	if !strictEvents(ctx) {
		return errs
	}
	errs = append(errs, podspec.ValidateObjectMetaUpdate(&e.ObjectMeta, &old.ObjectMeta)...)
	if !apiequality.Semantic.DeepEqual(e.Series, old.Series) {
		errs = append(errs, validateEventSeries(e)...)
	}
	for _, part := range []struct {
		name     string
		now, was any
	}{
		{"involvedObject", e.InvolvedObject, old.InvolvedObject},
		{"reason", e.Reason, old.Reason},
		{"message", e.Message, old.Message},
		{"source", e.Source, old.Source},
		{"firstTimestamp", e.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", e.LastTimestamp, old.LastTimestamp},
		{"count", e.Count, old.Count},
		{"type", e.Type, old.Type},
		{"action", e.Action, old.Action},
		{"related", e.Related, old.Related},
		{"reportingController", e.ReportingController, old.ReportingController},
		{"reportingInstance", e.ReportingInstance, old.ReportingInstance},
	} {
		errs = append(errs, apivalidation.ValidateImmutableField(part.now, part.was, field.NewPath(part.name))...)
	}
	// Some clients send back fewer digits than they got.
	if !e.EventTime.Truncate(time.Microsecond).Equal(old.EventTime.Truncate(time.Microsecond)) {
		errs = append(errs, apivalidation.ValidateImmutableField(e.EventTime, old.EventTime, field.NewPath("eventTime"))...)
	}
	return errs
}

func validateEventSeries(e *corev1.Event) field.ErrorList {
	if e.Series == nil {
		return nil
	}
	var errs field.ErrorList
	if e.Series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if e.Series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// validateAnyEvent checks what holds in both groups. An event with an eventTime
// is of the new kind, wherever it comes from.
func validateAnyEvent(ctx context.Context, e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	namespace := e.InvolvedObject.Namespace
	elsewhere := field.Invalid(field.NewPath("involvedObject", "namespace"), namespace, "does not match event.namespace")
	if e.EventTime.IsZero() {
		// Events of objects without a namespace are kept in default.
		if namespace == "" && e.Namespace != metav1.NamespaceNone && e.Namespace != metav1.NamespaceDefault || namespace != "" && namespace != e.Namespace {
			errs = append(errs, elsewhere)
		}
		return errs
	}
	if namespace == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
		errs = append(errs, elsewhere)
	}
	controller := field.NewPath("reportingController")
	if !strictEvents(ctx) {
		controller = field.NewPath("reportingComponent")
	}
	if e.ReportingController == "" {
		errs = append(errs, field.Required(controller, ""))
	}
	for _, message := range validation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(controller, e.ReportingController, message))
	}
	for _, word := range []struct{ name, value string }{
		{"reportingInstance", e.ReportingInstance}, {"action", e.Action}, {"reason", e.Reason},
	} {
		path := field.NewPath(word.name)
		if word.value == "" {
			errs = append(errs, field.Required(path, ""))
		}
		if len(word.value) > maxEventWord {
			errs = append(errs, field.Invalid(path, "", fmt.Sprintf("can have at most %v characters", maxEventWord)))
		}
	}
	if len(e.Message) > maxEventNote {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %v characters", maxEventNote)))
	}
	return errs
}

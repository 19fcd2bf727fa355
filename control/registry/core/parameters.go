package core

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// addParameters lets the scheme read the options of connections (logs, exec, proxies) from the
// parameters of a URL.
func addParameters(s *runtime.Scheme) error {
	for _, options := range []runtime.Object{
		&corev1.PodLogOptions{}, &corev1.PodExecOptions{}, &corev1.PodAttachOptions{}, &corev1.PodPortForwardOptions{},
		&corev1.PodProxyOptions{}, &corev1.NodeProxyOptions{}, &corev1.ServiceProxyOptions{},
	} {
		err := s.AddConversionFunc((*url.Values)(nil), options, func(from, to any, _ conversion.Scope) error {
			return readParameters(*from.(*url.Values), to)
		})
		if err != nil {
			return fmt.Errorf("register parameters of %T: %w", options, err)
		}
	}
	return nil
}

// readParameters sets the fields of the struct which into points to from the parameters that carry
// their JSON names. Fields that are not named become zero.
func readParameters(values url.Values, into any) error {
	structure := reflect.ValueOf(into).Elem()
	for i := range structure.NumField() {
		name, _, _ := strings.Cut(structure.Type().Field(i).Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		field := structure.Field(i)
		field.SetZero()
		given, found := values[name]
		if !found || len(given) == 0 {
			continue
		}
		if err := readParameter(given, field.Addr().Interface()); err != nil {
			return fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return nil
}

// readParameter knows the types that occur in options.
func readParameter(given []string, into any) error {
	switch field := into.(type) {
	case *string:
		return runtime.Convert_Slice_string_To_string(&given, field, nil)
	case **string:
		*field = &given[0]
		return nil
	case *bool:
		return runtime.Convert_Slice_string_To_bool(&given, field, nil)
	case **int64:
		return runtime.Convert_Slice_string_To_Pointer_int64(&given, field, nil)
	case *[]string:
		*field = given
		return nil
	case *[]int32:
		return metav1.Convert_Slice_string_To_Slice_int32(&given, field, nil)
	case **metav1.Time:
		return metav1.Convert_Slice_string_To_Pointer_v1_Time(&given, field, nil)
	default:
		return fmt.Errorf("cannot be read into %T", into)
	}
}

// Informer is a program as an operator's author writes it: client-go, its in-cluster configuration, a shared
// informer. It changes ConfigMaps of its own namespace, says what the informer tells of that, a line an event,
// and ends with 0 when it was told all of it in order, and nothing else.
//
// client-go's own variable KUBE_FEATURE_WatchListClient=false makes the informer list before it watches.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	deadline      = 60 * time.Second
	selector      = "informer=sees"
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "use this file instead of the in-cluster configuration")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := run(ctx, *kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string) error {
	config, namespace, err := configuration(kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	if err := removeAll(ctx, maps); err != nil {
		return err
	}
	for _, object := range []*corev1.ConfigMap{object("early", "one", true), object("unseen", "one", false)} {
		if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return err
		}
	}

	seen := make(chan string, 100)
	failed := make(chan error, 100)
	stop, err := watch(ctx, client, namespace, seen, failed)
	if err != nil {
		return err
	}
	err = script(ctx, maps, seen, failed)
	stop()
	return errors.Join(err, removeAll(ctx, maps))
}

// configuration is the in-cluster one, unless a file is named; with it comes the namespace to work in.
func configuration(kubeconfig string) (*rest.Config, string, error) {
	if kubeconfig != "" {
		loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}, nil)
		config, err := loader.ClientConfig()
		if err != nil {
			return nil, "", err
		}
		namespace, _, err := loader.Namespace()
		return config, namespace, err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, "", err
	}
	name, err := os.ReadFile(namespaceFile)
	return config, strings.TrimSpace(string(name)), err
}

// watch starts an informer that sends a line for each event, and each failure of its list or watch, which it
// would otherwise only log and try again. The function returned stops it and waits for its end.
func watch(ctx context.Context, client kubernetes.Interface, namespace string, seen chan<- string, failed chan<- error) (func(), error) {
	informer := coreinformers.NewFilteredConfigMapInformer(client, namespace, 0, cache.Indexers{},
		func(options *metav1.ListOptions) { options.LabelSelector = selector })
	err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() == nil {
			failed <- fmt.Errorf("the informer's list or watch: %w", err)
		}
	})
	if err != nil {
		return nil, err
	}
	tell := func(event string, object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		configMap := object.(*corev1.ConfigMap)
		seen <- fmt.Sprintf("%s %s %s", event, configMap.Name, configMap.Data["text"])
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { tell("add", object) },
		UpdateFunc: func(_, object any) { tell("update", object) },
		DeleteFunc: func(object any) { tell("delete", object) },
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		informer.RunWithContext(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}, nil
}

// script changes ConfigMaps and expects one event of each change, in order.
func script(ctx context.Context, maps corev1client.ConfigMapInterface, seen <-chan string, failed <-chan error) error {
	create := func(object *corev1.ConfigMap) error {
		_, err := maps.Create(ctx, object, metav1.CreateOptions{})
		return err
	}
	update := func(object *corev1.ConfigMap) error {
		_, err := maps.Update(ctx, object, metav1.UpdateOptions{})
		return err
	}
	remove := func(name string) error { return maps.Delete(ctx, name, metav1.DeleteOptions{}) }

	for _, step := range []struct {
		change func() error
		event  string
	}{
		{func() error { return nil }, "add early one"},
		{func() error { return create(object("late", "one", true)) }, "add late one"},
		{func() error { return update(object("late", "two", true)) }, "update late two"},
		{func() error { return update(object("unseen", "two", true)) }, "add unseen two"},
		{func() error { return update(object("unseen", "three", false)) }, "delete unseen two"},
		{func() error { return remove("late") }, "delete late two"},
		{func() error { return remove("early") }, "delete early one"},
	} {
		if err := step.change(); err != nil {
			return fmt.Errorf("before %q: %w", step.event, err)
		}
		select {
		case event := <-seen:
			fmt.Println(event)
			if event != step.event {
				return fmt.Errorf("want %q, got %q", step.event, event)
			}
		case err := <-failed:
			return fmt.Errorf("waiting for %q: %w", step.event, err)
		case <-ctx.Done():
			return fmt.Errorf("waited %s in vain for %q", deadline, step.event)
		}
	}
	return nil
}

// object is a ConfigMap that the informer's selector finds, or does not.
func object(name, text string, found bool) *corev1.ConfigMap {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"text": text}}
	if found {
		key, value, _ := strings.Cut(selector, "=")
		object.Labels = map[string]string{key: value}
	}
	return object
}

// removeAll removes what this run, or one that was killed, has left.
func removeAll(ctx context.Context, maps corev1client.ConfigMapInterface) error {
	for _, name := range []string{"early", "late", "unseen"} {
		if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

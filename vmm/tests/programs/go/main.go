// A program of Go's standard library alone: goroutines and what schedules them, collections, sockets, files, signals, panics.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func goroutines() {
	var total int64
	var group sync.WaitGroup
	for n := 0; n < 2000; n++ {
		group.Add(1)
		go func(n int64) {
			defer group.Done()
			runtime.Gosched()
			atomic.AddInt64(&total, n)
		}(int64(n))
	}
	group.Wait()
	fmt.Println("goroutines", total)

	// Each number goes through a hundred goroutines in a row.
	first := make(chan int)
	last := first
	for n := 0; n < 100; n++ {
		from, to := last, make(chan int)
		go func() {
			for value := range from {
				to <- value + 1
			}
			close(to)
		}()
		last = to
	}
	go func() {
		for n := 0; n < 100; n++ {
			first <- n
		}
		close(first)
	}()
	sum := 0
	for value := range last {
		sum += value
	}
	fmt.Println("chain", sum)

	var turn int
	lock := sync.Mutex{}
	condition := sync.NewCond(&lock)
	for me := 0; me < 3; me++ {
		group.Add(1)
		go func(me int) {
			defer group.Done()
			// A thread of its own: each hand-over is one between threads of the kernel.
			runtime.LockOSThread()
			for n := 0; n < 100; n++ {
				lock.Lock()
				for turn%3 != me {
					condition.Wait()
				}
				turn++
				condition.Broadcast()
				lock.Unlock()
			}
		}(me)
	}
	group.Wait()
	fmt.Println("turns", turn)
}

// A goroutine that never calls anything is stopped by a signal, or a collection would wait for it for good.
func preemption() {
	var stop, turns uint64
	for n := 0; n < 2*runtime.GOMAXPROCS(0); n++ {
		go func() {
			for atomic.LoadUint64(&stop) == 0 {
				turns++
			}
		}()
	}
	for n := 0; n < 5; n++ {
		runtime.GC()
	}
	atomic.StoreUint64(&stop, 1)
	fmt.Println("preempted")
}

func memory() {
	type node struct {
		left, right *node
		text        string
	}
	var grow func(depth int) *node
	grow = func(depth int) *node {
		if depth == 0 {
			return nil
		}
		return &node{grow(depth - 1), grow(depth - 1), fmt.Sprint(depth)}
	}
	var count func(of *node) int
	count = func(of *node) int {
		if of == nil {
			return 0
		}
		return 1 + count(of.left) + count(of.right)
	}
	kept := grow(12)
	for n := 0; n < 20; n++ {
		grow(12)
	}
	finalized := make(chan bool)
	func() {
		dead := &node{text: "dead"}
		runtime.SetFinalizer(dead, func(*node) { close(finalized) })
	}()
	runtime.GC()
	<-finalized
	debug.FreeOSMemory()
	fmt.Println("nodes", count(kept))

	// The stack is copied to a larger one, many times.
	var deep func(n int) int
	deep = func(n int) int {
		var room [128]int
		if n == 0 {
			return room[0]
		}
		room[n%128] = n
		return deep(n-1) + room[n%128]
	}
	done := make(chan int)
	go func() { done <- deep(20_000) }()
	fmt.Println("deep", <-done)

	words := map[string]int{}
	for n := 0; n < 100_000; n++ {
		words[fmt.Sprint(n%5000)] += n
	}
	keys := make([]string, 0, len(words))
	for key := range words {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	fmt.Println("map", len(keys), keys[:3], words["4999"])
}

func recovered(what string, act func()) {
	defer func() {
		why := recover()
		_, isRuntime := why.(runtime.Error)
		fmt.Println(what, why, isRuntime)
	}()
	act()
}

func panics() {
	var nothing *struct{ value int }
	list := []int{1, 2, 3}
	index, zero := 5, 0
	recovered("nil", func() { fmt.Println(nothing.value) })
	recovered("index", func() { fmt.Println(list[index]) })
	recovered("division", func() { fmt.Println(1 / zero) })
	recovered("own", func() { panic("of mine") })
	recovered("closed", func() {
		channel := make(chan int)
		close(channel)
		close(channel)
	})
}

func times() {
	ticker := time.NewTicker(2 * time.Millisecond)
	for n := 0; n < 5; n++ {
		<-ticker.C
	}
	ticker.Stop()
	began := time.Now()
	time.Sleep(10 * time.Millisecond)
	fmt.Println("slept", time.Since(began) >= 10*time.Millisecond, began.Year() > 2020)
	limited, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	<-limited.Done()
	fmt.Println("context", limited.Err())
	fired := make(chan int)
	for n := 1; n <= 3; n++ {
		n := n
		time.AfterFunc(time.Duration(n)*time.Millisecond, func() { fired <- n })
	}
	fmt.Println("timers", <-fired+<-fired+<-fired)
}

func signals() {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGUSR1)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	fmt.Println("signal", <-heard)
	signal.Ignore(syscall.SIGUSR2)
	check(syscall.Kill(os.Getpid(), syscall.SIGUSR2))
	fmt.Println("ignored", signal.Ignored(syscall.SIGUSR2))
	limited, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	check(syscall.Kill(os.Getpid(), syscall.SIGTERM))
	<-limited.Done()
	fmt.Println("terminated", errors.Is(limited.Err(), context.Canceled))
}

func files() {
	folder := must(os.MkdirTemp("", "go"))
	path := filepath.Join(folder, "a", "b")
	check(os.MkdirAll(path, 0o750))
	name := filepath.Join(path, "text")
	check(os.WriteFile(name, []byte(strings.Repeat("line\n", 1000)), 0o640))
	file := must(os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0))
	must(file.WriteString("last"))
	size := must(file.Seek(0, io.SeekEnd))
	part := make([]byte, 4)
	must(file.ReadAt(part, size-4))
	check(file.Truncate(5))
	facts := must(file.Stat())
	check(file.Close())
	fmt.Println("file", size, string(part), facts.Size(), facts.Mode())
	check(os.Symlink("text", filepath.Join(path, "link")))
	check(os.Rename(name, filepath.Join(path, "other")))
	_, err := os.ReadFile(filepath.Join(path, "link"))
	fmt.Println("dangling", errors.Is(err, fs.ErrNotExist))
	check(filepath.WalkDir(folder, func(at string, entry fs.DirEntry, err error) error {
		fmt.Println("walk", strings.TrimPrefix(at, folder), entry.Type())
		return err
	}))
	check(os.RemoveAll(folder))
	_, err = os.Stat(folder)
	fmt.Println("removed", errors.Is(err, fs.ErrNotExist), os.WriteFile("/fn/new", nil, 0o600))
}

func served(what string, client *http.Client, address string) {
	var group sync.WaitGroup
	answers := make([]string, 16)
	for n := range answers {
		group.Add(1)
		go func(n int) {
			defer group.Done()
			answer := must(client.Post(fmt.Sprint(address, "/sum?n=", n), "text/plain", strings.NewReader(strings.Repeat("x", n*10_000))))
			answers[n] = answer.Status + " " + string(must(io.ReadAll(answer.Body)))
			check(answer.Body.Close())
		}(n)
	}
	group.Wait()
	fmt.Println(what, answers[0], "|", answers[15])
}

func certificate() tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		NotAfter:     time.Now().Add(time.Hour),
	}
	signed := must(x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key))
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}
}

func network() {
	handler := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		digest := sha256.Sum256(must(io.ReadAll(request.Body)))
		fmt.Fprintf(answer, "%s %x", request.URL.Query().Get("n"), digest[:4])
	})
	plain := must(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: handler}
	go server.Serve(plain)
	served("http", http.DefaultClient, "http://"+plain.Addr().String())
	check(server.Shutdown(context.Background()))

	own := certificate()
	secure := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}}))
	go http.Serve(secure, handler)
	trusted := x509.NewCertPool()
	trusted.AddCert(must(x509.ParseCertificate(own.Certificate[0])))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, ServerName: "localhost"}}
	served("https", &http.Client{Transport: transport}, "https://"+secure.Addr().String())

	folder := must(os.MkdirTemp("", "go"))
	defer os.RemoveAll(folder)
	local := must(net.Listen("unix", filepath.Join(folder, "socket")))
	go func() {
		one := must(local.Accept())
		must(io.Copy(one, one))
		check(one.Close())
	}()
	mine := must(net.Dial("unix", local.Addr().String()))
	must(mine.Write([]byte("echo")))
	check(mine.(*net.UnixConn).CloseWrite())
	fmt.Println("unix", string(must(io.ReadAll(mine))))
	late := must(net.Listen("tcp", "127.0.0.1:0"))
	waiting := must(net.Dial("tcp", late.Addr().String()))
	check(waiting.SetReadDeadline(time.Now().Add(5 * time.Millisecond)))
	_, err := waiting.Read(make([]byte, 1))
	fmt.Println("deadline", errors.Is(err, os.ErrDeadlineExceeded))
}

func library() {
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	must(writer.Write(bytes.Repeat([]byte("compress "), 10_000)))
	check(writer.Close())
	unpacked := must(io.ReadAll(must(gzip.NewReader(&packed))))
	fmt.Printf("gzip %d %x\n", len(unpacked), sha256.Sum256(unpacked))
	var parsed map[string]any
	check(json.Unmarshal([]byte(`{"b": [1, 2.5, null], "a": "é"}`), &parsed))
	fmt.Println("json", string(must(json.Marshal(parsed))))
	random := make([]byte, 32)
	must(rand.Read(random))
	fmt.Println("random", !bytes.Equal(random, make([]byte, 32)))
	_, err := exec.LookPath("no-such-program")
	fmt.Println("program", errors.Is(err, exec.ErrNotFound))
}

func main() {
	goroutines()
	preemption()
	memory()
	panics()
	times()
	signals()
	files()
	network()
	library()
	defer os.Exit(3)
	fmt.Println("end", len(os.Args), runtime.GOOS, runtime.GOARCH)
}

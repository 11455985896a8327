// The program llama-perplexity. llama.cpp's own main ends without waiting for the thread that writes its log: on a busy
// machine the last lines, which have the result, are lost.

#include "log.h"

int llama_perplexity(int argc, char ** argv);

int main(int argc, char ** argv) {
    const int status = llama_perplexity(argc, argv);
    common_log_flush(common_log_main());
    return status;
}

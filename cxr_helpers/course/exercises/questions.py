"""The questions of notebooks 01 to 06, with an explanation for each option."""

from cxr_helpers.course.exercises.quizzes import Quiz

_ALL = (
    Quiz(
        number="1.A",
        question="A model agrees perfectly with the NIH labels of Pneumothorax on new images. "
        "What do you know?",
        right="b",
        options=(
            (
                "It finds every pneumothorax.",
                "Fewer than half of those that radiologists saw were labeled.",
            ),
            (
                "It imitates the labels perfectly, and they are often wrong.",
                "A score against noisy labels says how well the noise is imitated too.",
            ),
            (
                "It must have been trained on the test images.",
                "That is one way to get there, but the score alone does not tell.",
            ),
        ),
    ),
    Quiz(
        number="1.B",
        question="A colleague adds the reader's name to the inputs of a VinDr model, and its "
        "AUROC for 'abnormal' jumps. Why?",
        right="c",
        options=(
            (
                "Some readers see more, so the model learns from the best.",
                "The name says nothing about what is in this image.",
            ),
            (
                "More inputs always help.",
                "An input that is not there, or means something else, at another hospital harms.",
            ),
            (
                "Some readers were mostly given abnormal images, and the name gives that away.",
                "Three readers drew nearly all boxes. The name is a shortcut, not a finding.",
            ),
        ),
    ),
    Quiz(
        number="2.A",
        question="After ten epochs the loss is 0.97 D. What do you conclude?",
        right="b",
        options=(
            (
                "It is nearly 1, so training is nearly done.",
                "The loss starts near D: uncorrelated outputs cost about 1 for each feature.",
            ),
            (
                "Next to nothing was learned yet; look at learning rate, views and diagonal.",
                "0.97 D is what random outputs give. The diagonal will be near 0.",
            ),
            (
                "The network has collapsed.",
                "A collapse to copies shows in the off-diagonal, mostly at a low invariance term.",
            ),
        ),
    ),
    Quiz(
        number="2.B",
        question="The run without augmentation has a diagonal of 1 from its first step. Why is "
        "it not the best run?",
        right="a",
        options=(
            (
                "Both views are one image, so being alike asks for nothing.",
                "The task was solved before training; what remains is to remove copies.",
            ),
            (
                "A diagonal of 1 is always a collapse.",
                "The aim is a diagonal of 1, but for two views that really differ.",
            ),
            (
                "Its batch was too small.",
                "The batch is that of the healthy run; only the augmentation is missing.",
            ),
        ),
    ),
    Quiz(
        number="3.A",
        question="The 95% intervals of two arms overlap, scored on the same patients. What "
        "follows?",
        right="a",
        options=(
            (
                "Nothing yet: look at the interval of the paired difference.",
                "Hard patients are hard for both arms. The difference cancels that part.",
            ),
            (
                "There is no difference.",
                "Overlap of two intervals is no test, and 'not shown' is not 'not there'.",
            ),
            (
                "The arm with the higher score is better.",
                "It may be the luck of these patients; that is what the interval is for.",
            ),
        ),
    ),
    Quiz(
        number="3.B",
        question="Platt scaling makes the probabilities of a probe far better calibrated. What "
        "happens to its AUROC?",
        right="b",
        options=(
            (
                "It rises, since the probabilities are better.",
                "AUROC asks only for the order of the images.",
            ),
            (
                "It stays the same.",
                "A rising curve moves the scores and keeps their order (if its slope is positive).",
            ),
            (
                "It falls, since two numbers were fitted.",
                "They were fitted on validation patients, and they change no order.",
            ),
        ),
    ),
    Quiz(
        number="4.A",
        question="load_state_dict(state, strict=False) raises no error, and the detector trains. "
        "What do you know about the pretrained weights?",
        right="b",
        options=(
            (
                "They arrived; otherwise there would be an error.",
                "strict=False is just what takes that error away.",
            ),
            (
                "Nothing: perhaps not one of them found a place.",
                "Names that do not match are skipped. Count the tensors that found a place.",
            ),
            (
                "Those that fit arrived, and the rest was filled in from ImageNet.",
                "The rest stays as the network was built, which here means random.",
            ),
        ),
    ),
    Quiz(
        number="4.B",
        question="A competition's winner reports a mAP of 0.28 at an IoU of 0.4. Your detector "
        "has a mAP50 of 0.25. Whose detector is better?",
        right="c",
        options=(
            (
                "The winner's, by 0.03.",
                "At 0.4 boxes count as hits that mAP50 calls misses: your 0.25 would rise too.",
            ),
            (
                "Yours, since 0.5 is the harder threshold.",
                "Harder by how much? That differs from detector to detector.",
            ),
            (
                "That cannot be said from these two numbers.",
                "Score both at one threshold, on the same images, against the same boxes.",
            ),
        ),
    ),
    Quiz(
        number="4.C",
        question="On abnormal images detector X has the higher mAP50. On all images, at one "
        "false alarm an image, Y finds more. Which one for a screening in which most people are "
        "healthy?",
        right="b",
        options=(
            (
                "X: mAP50 is the measure of the field.",
                "On abnormal images alone it never meets a healthy person.",
            ),
            (
                "Y: there most false alarms would come from healthy people.",
                "FROC on all images counts these. mAP50 on abnormal images does not see them.",
            ),
            (
                "Either: both measures look at the same boxes.",
                "The boxes are the same, but the images are not.",
            ),
        ),
    ),
    Quiz(
        number="5.A",
        question="Two groups score the same heatmaps by the pointing game. One counts points up "
        "to 15 pixels beside a box as hits and reports 0.80; the other does not and reports "
        "0.65. What follows?",
        right="b",
        options=(
            (
                "The first group's heatmaps are better.",
                "They are the same heatmaps. Only the rule differs.",
            ),
            (
                "A score without its rule means little, above all for small boxes.",
                "A margin of 15 pixels makes a small box many times as large, a large one hardly.",
            ),
            (
                "The truth lies between, at about 0.72.",
                "Two rules ask two questions; their mean answers none of them.",
            ),
        ),
    ),
    Quiz(
        number="5.B",
        question="All weights of the box head are drawn anew. The heatmap's rank correlation "
        "with the one of the trained detector is still 0.95. What follows?",
        right="c",
        options=(
            (
                "The heatmap is robust, so it can be trusted.",
                "It is robust against the loss of all that the head had learned.",
            ),
            (
                "The detector has learned nothing.",
                "The detector was not tested here. The way of making heatmaps was.",
            ),
            (
                "The heatmap hardly depends on what the head learned, so it cannot explain that.",
                "It would look the same for a head that knows nothing.",
            ),
        ),
    ),
    Quiz(
        number="5.C",
        question="In ten images of ten the heatmap lies on the finding. Is the network free of "
        "shortcuts?",
        right="b",
        options=(
            (
                "Yes: it looks where it should.",
                "Ten images are few, and an object inside the box would look the same.",
            ),
            (
                "Not shown. Move or remove the suspected object and watch the score.",
                "A heatmap may raise a suspicion or miss one; the experiment decides.",
            ),
            (
                "Yes, if the rank correlation after randomizing is low.",
                "That shows that the map depends on the weights, also if these learned a shortcut.",
            ),
        ),
    ),
    Quiz(
        number="6.A",
        question="At epoch 300 the loss is not finite and the run stops. What do you do first?",
        right="c",
        options=(
            (
                "Delete the checkpoint and start anew with another seed.",
                "Days are lost, and the cause is not known: the new run may end the same way.",
            ),
            (
                "Make the code replace values that are not finite by zero and go on.",
                "Then nobody will ever see what went wrong, and the weights may be ruined already.",
            ),
            (
                "Look at the log before it, keep the last good checkpoint, go on in float32; if "
                "that fails, lower the learning rate in a new run.",
                "The log says whether it came slowly or at once. In float32 the same run goes on "
                "from the checkpoint; another learning rate is another run, from epoch 0.",
            ),
        ),
    ),
    Quiz(
        number="6.B",
        question="Two GPUs are 1.9 times as fast as one, at 384 images on each. What else must "
        "be shown?",
        right="b",
        options=(
            (
                "Nothing: 95% efficiency is excellent.",
                "Excellent at what? A batch of 768 trains otherwise than one of 384.",
            ),
            (
                "That the result is as good, at the learning rate that this batch needs.",
                "The whole batch has doubled. Speed counts at equal accuracy.",
            ),
            (
                "That four GPUs are 3.8 times as fast.",
                "That can wait. Whether the training is as good comes first.",
            ),
        ),
    ),
)
QUIZZES = {quiz.number: quiz for quiz in _ALL}

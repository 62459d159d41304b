//! Sharing places among those who can take some, by weight.

/// Who takes turns.
pub(super) trait Sharer {
    /// What it gets for one that others get.
    fn weight(&self) -> usize {
        1
    }

    /// What it gets in this turn when there is not enough for the turns of all.
    fn turn(&self) -> usize {
        self.weight()
    }
}

/// Shares `amount` out by weight: whoever takes less than its share leaves the rest to those who took
/// all of theirs. Returns how much was taken.
pub(super) fn share<T: Sharer, E>(
    amount: usize,
    mut among: Vec<T>,
    mut take: impl FnMut(&mut T, usize) -> Result<usize, E>,
) -> Result<usize, E> {
    let mut taken = 0;
    while taken < amount && !among.is_empty() {
        let each = (amount - taken) / among.iter().map(Sharer::weight).sum::<usize>();
        let mut greedy = Vec::new();
        for mut one in among {
            // What is not enough for all is given out last, turn by turn, when it is known who can still
            // take more.
            let quota = if each > 0 {
                each * one.weight()
            } else {
                one.turn().min(amount - taken)
            };
            let got = take(&mut one, quota)?;
            taken += got;
            if quota == 0 || got == quota {
                greedy.push(one);
            }
        }
        among = greedy;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stock {
        place: usize,
        weight: usize,
    }

    impl Sharer for Stock {
        fn weight(&self) -> usize {
            self.weight
        }
    }

    fn shares(amount: usize, stocks: &[usize]) -> Vec<usize> {
        weighted(amount, stocks, &vec![1; stocks.len()])
    }

    fn weighted(amount: usize, stocks: &[usize], weights: &[usize]) -> Vec<usize> {
        let mut taken = vec![0; stocks.len()];
        let stock = |(place, weight): (usize, &usize)| Stock {
            place,
            weight: *weight,
        };
        let among = weights.iter().enumerate().map(stock).collect();
        share(amount, among, |one, quota| {
            let got = quota.min(stocks[one.place] - taken[one.place]);
            taken[one.place] += got;
            Ok::<_, ()>(got)
        })
        .unwrap();
        taken
    }

    #[test]
    fn shares_are_by_weight_and_turns_are_as_long() {
        assert_eq!(weighted(10, &[100, 100, 100], &[3, 1, 1]), [6, 2, 2]);
        assert_eq!(weighted(4, &[100, 100, 100], &[3, 1, 1]), [3, 1, 0]);
        assert_eq!(weighted(2, &[100, 100, 100], &[3, 1, 1]), [2, 0, 0]);
        assert_eq!(weighted(10, &[1, 100, 100], &[3, 1, 1]), [1, 5, 4]);
    }

    #[test]
    fn shares_are_even_and_nothing_is_left_that_somebody_could_take() {
        assert_eq!(shares(10, &[100, 2, 100]), [4, 2, 4]);
        assert_eq!(shares(2, &[5, 5, 5]), [1, 1, 0]);
        assert_eq!(shares(10, &[1, 2]), [1, 2]);
        assert_eq!(shares(10, &[]), Vec::<usize>::new());
    }
}
